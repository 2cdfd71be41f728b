//! Password hashing by argon2id, on a small pool of its own, so that it cannot starve sockets.

use std::{sync::mpsc, thread};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::phc::PasswordHash,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use parlor_core::ports::{EngineError, EngineResult, passwords::Passwords};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Jobs that may wait; more is refused at once (promises P17).
const WAITING: usize = 64;
/// 19 MiB, two passes, one lane: the floor of the OWASP password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

type Job = Box<dyn FnOnce(&Argon2<'static>) + Send>;

/// The pool.
pub struct PasswordPool {
    jobs: mpsc::SyncSender<Job>,
    /// Verified against when there is no account, so that both answers take as long.
    dummy: String,
}

impl PasswordPool {
    /// Starts one thread per core, at most four.
    pub fn start() -> anyhow::Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None)
            .map_err(|error| anyhow::anyhow!("argon2 refuses its parameters: {error}"))?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let dummy = hash(&argon2, "nobody has this password").map_err(|e| anyhow::anyhow!(e))?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(WAITING);
        let queue = Arc::new(Mutex::new(queue));
        let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
        for number in 0..threads {
            let (queue, argon2) = (queue.clone(), argon2.clone());
            thread::Builder::new().name(format!("passwords-{number}")).spawn(move || {
                loop {
                    let job = queue.lock().recv();
                    match job {
                        Ok(job) => job(&argon2),
                        // The pool was dropped.
                        Err(mpsc::RecvError) => return,
                    }
                }
            })?;
        }
        Ok(Self { jobs, dummy })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>) -> T + Send + 'static,
    ) -> EngineResult<T> {
        let (answer, result) = oneshot::channel();
        // Who asked may have gone away.
        let job: Job = Box::new(move |argon2| drop(answer.send(work(argon2))));
        self.jobs
            .try_send(job)
            .map_err(|_| EngineError::unavailable("too many passwords wait to be checked"))?;
        result.await.map_err(|_| EngineError::broken("a password thread died"))
    }
}

#[async_trait]
impl Passwords for PasswordPool {
    async fn hash(&self, password: String) -> EngineResult<String> {
        self.run(move |argon2| hash(argon2, &password)).await?.map_err(EngineError::broken)
    }

    async fn verify(&self, password: String, known: Option<String>) -> EngineResult<bool> {
        let is_known = known.is_some();
        let known = known.unwrap_or_else(|| self.dummy.clone());
        let matches = self
            .run(move |argon2| {
                let parsed = PasswordHash::new(&known).map_err(|error| error.to_string())?;
                Ok::<_, String>(argon2.verify_password(password.as_bytes(), &parsed).is_ok())
            })
            .await?
            .map_err(EngineError::broken)?;
        Ok(matches && is_known)
    }
}

fn hash(argon2: &Argon2<'static>, password: &str) -> Result<String, String> {
    let hashed = argon2.hash_password(password.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let pool = PasswordPool::start().unwrap();
        let hash = pool.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_ne!(hash, pool.hash("correct horse".to_owned()).await.unwrap(), "salted");
        assert!(pool.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!pool.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(!pool.verify("nobody has this password".to_owned(), None).await.unwrap());
    }
}
