//! The guard of every load: loopback only, bounded in number and time.

use std::net::IpAddr;

use anyhow::{Context, bail};

/// Most clients of one run.
pub const MOST_CLIENTS: usize = 19_000;
/// Longest run, in seconds.
pub const LONGEST_S: u64 = 3_600;

/// Refuses every address that is not on this machine; names are not looked up.
pub fn check_loopback(server: &str) -> anyhow::Result<()> {
    let rest = server.strip_prefix("http://").context("a target begins with http://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        bail!("{server}: a target holds no user name");
    }
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
    };
    let address: IpAddr = host.parse().with_context(|| format!("{server}: not an IP address"))?;
    if !address.is_loopback() {
        bail!("{server}: load goes to loopback only");
    }
    Ok(())
}

/// Refuses a number of clients or a time that the machine or its neighbours would not bear.
pub fn check_size(n_clients: usize, seconds: u64) -> anyhow::Result<()> {
    if n_clients > MOST_CLIENTS {
        bail!("{n_clients} clients, at most {MOST_CLIENTS}");
    }
    if seconds > LONGEST_S {
        bail!("{seconds} seconds, at most {LONGEST_S}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_are_targets() {
        for good in ["http://127.0.0.1:8080", "http://127.7.7.7/", "http://[::1]:80/x"] {
            check_loopback(good).unwrap();
        }
        for bad in [
            "http://10.0.0.1:8080",
            "http://192.168.1.1",
            "https://127.0.0.1",
            "http://localhost.example.org",
            "http://localhost:80",
            "http://127.0.0.1@10.0.0.1/",
            "http://10.0.0.1/127.0.0.1",
            "127.0.0.1:80",
            "http://0.0.0.0:1",
            "http://[::]:1",
        ] {
            assert!(check_loopback(bad).is_err(), "{bad}");
        }
        assert!(check_size(MOST_CLIENTS + 1, 1).is_err() && check_size(1, LONGEST_S + 1).is_err());
    }
}
