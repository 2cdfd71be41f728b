//! Configuration: flags over environment over file over defaults; every value knows its source.
//!
//! Every key of the file is an environment variable too: `PARLOR_` and the path with `__` between
//! its parts (`PARLOR_LIMITS__GROUP_MEMBERS=5000`).

use std::{net::SocketAddr, path::PathBuf};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use parlor_proto::Limits;
use serde::{Deserialize, Serialize};

/// Everything that an operator sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the doors.
    pub listen: SocketAddr,
    /// Folder of the data.
    pub data: PathBuf,
    /// Name of the server, as people see it.
    pub name: String,
    /// Who may make an account.
    pub registration: RegistrationRule,
    /// Address under which browsers reach the server, where a proxy stands before it.
    pub public_url: Option<String>,
    /// Origins of other web apps that may call with bearer tokens.
    pub allowed_origins: Vec<String>,
    /// Addresses of proxies whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<std::net::IpAddr>,
    /// Rate limits and the limit of connections.
    pub rate_limits: Switch,
    /// Silence in milliseconds after which a client is asked for a sign of life.
    pub heartbeat_ms: u64,
    /// Days without use after which a session ends.
    pub session_idle_days: u64,
    /// Days after which a session ends in any case.
    pub session_days: u64,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Filter of the log, as `info` or `parlor_core=debug`.
    pub log: String,
    /// Every number of the contract.
    pub limits: Limits,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Tells whether it is on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationRule {
    /// Anybody.
    Open,
    /// Nobody but the first.
    Closed,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            data: PathBuf::from("./parlor-data"),
            name: "Parlor".to_owned(),
            registration: RegistrationRule::Open,
            public_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            rate_limits: Switch::On,
            heartbeat_ms: 15_000,
            session_idle_days: 30,
            session_days: 180,
            log_format: LogFormat::Text,
            log: "info".to_owned(),
            limits: Limits::default(),
        }
    }
}

/// Flags of `serve`, `config` and `check`; they outrank everything else.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, env = "PARLOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder of the data.
    #[arg(long, value_name = "FOLDER")]
    pub data: Option<PathBuf>,
}

/// Reads the configuration; an error names the key, its source and the reason.
pub fn load(flags: &Flags) -> Result<(Config, Figment), String> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(file) = &flags.config {
        if !file.is_file() {
            return Err(format!("the configuration file {} does not exist", file.display()));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    figment = figment.merge(Env::prefixed("PARLOR_").ignore(&["config"]).split("__"));
    if let Some(listen) = flags.listen {
        figment = figment.merge(("listen", listen));
    }
    if let Some(data) = &flags.data {
        figment = figment.merge(("data", data));
    }
    let config: Config = figment.extract().map_err(|errors| explain(&errors))?;
    check(&config)?;
    Ok((config, figment))
}

/// Returns every key with its value and where the value came from.
pub fn describe(config: &Config, figment: &Figment) -> Result<String, String> {
    let value = serde_json::to_value(config).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    describe_value("", &value, figment, &mut lines);
    Ok(lines.join("\n"))
}

fn describe_value(
    path: &str,
    value: &serde_json::Value,
    figment: &Figment,
    lines: &mut Vec<String>,
) {
    if let serde_json::Value::Object(fields) = value {
        for (key, value) in fields {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            describe_value(&path, value, figment, lines);
        }
        return;
    }
    let source =
        figment.find_metadata(path).map_or("default".to_owned(), |metadata| {
            match &metadata.source {
                Some(source) => format!("{} ({source})", metadata.name),
                None if metadata.name.contains("Config") => "default".to_owned(),
                None => metadata.name.clone().into_owned(),
            }
        });
    lines.push(format!("{path} = {value}    # {source}"));
}

fn check(config: &Config) -> Result<(), String> {
    let limits = &config.limits;
    for (key, value) in [
        ("limits.message_bytes", limits.message_bytes),
        ("limits.frame_bytes", limits.frame_bytes),
        ("limits.batch", limits.batch),
        ("limits.page", limits.page),
        ("limits.title_chars", limits.title_chars),
        ("limits.username_chars", limits.username_chars),
        ("limits.group_members", limits.group_members),
        ("limits.sends_per_second", limits.sends_per_second),
        ("limits.sends_burst", limits.sends_burst),
        ("limits.connections_per_user", limits.connections_per_user),
    ] {
        if value == 0 {
            return Err(format!("{key}: 0 would refuse everything; give at least 1"));
        }
    }
    if !(100..=240_000).contains(&config.heartbeat_ms) {
        return Err("heartbeat_ms: lies between 100 and 240000".to_owned());
    }
    if config.session_days == 0 || config.session_idle_days == 0 {
        return Err("session_days and session_idle_days: at least 1".to_owned());
    }
    if config.name.trim().is_empty() || config.name.chars().count() > 100 {
        return Err("name: has 1 to 100 characters".to_owned());
    }
    Ok(())
}

fn explain(errors: &figment::Error) -> String {
    let lines = errors.clone().into_iter().map(|error| {
        let key = error.path.join(".");
        let source = error.metadata.as_ref().map_or("the configuration".to_owned(), |metadata| {
            match &metadata.source {
                Some(source) => format!("{} ({source})", metadata.name),
                None => metadata.name.clone().into_owned(),
            }
        });
        format!("{key}: {} — from {source}", error.kind)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_outrank_the_file_and_unknown_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("parlor.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nname = \"Bikes\"\n[limits]\npage = 7\n")
            .unwrap();
        let flags = Flags { config: Some(file.clone()), ..Flags::default() };
        let (config, _) = load(&flags).unwrap();
        assert_eq!((config.listen.port(), config.limits.page), (1, 7));
        assert_eq!(config.limits.batch, Limits::default().batch);
        let flags = Flags { listen: Some(SocketAddr::from(([127, 0, 0, 1], 2))), ..flags };
        let (config, figment) = load(&flags).unwrap();
        assert_eq!(config.listen.port(), 2);
        assert!(describe(&config, &figment).unwrap().contains("name = \"Bikes\"    # TOML file"));

        std::fs::write(&file, "colour = \"red\"\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("colour"));
        std::fs::write(&file, "heartbeat_ms = 5\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("heartbeat_ms"));
        std::fs::write(&file, "[limits]\npage = \"many\"\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("limits.page"));
    }
}
