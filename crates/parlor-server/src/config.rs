//! Configuration: flags over environment over file over defaults; every value knows its source.
//!
//! Every key of the file is an environment variable too: `PARLOR_` and the path with `__` between
//! its parts (`PARLOR_LIMITS__GROUP_MEMBERS=5000`); lists stand there with commas. A key that does not
//! exist and a value that does not fit are refused, with the key, the source and the reason: a wrong
//! setting must not switch a check off (security, rule 9).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use figment::{
    Figment, Metadata,
    providers::{Env, Format, Serialized, Toml},
    value::Value,
};
use parlor_proto::Limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Everything that an operator sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address of the doors.
    pub listen: SocketAddr,
    /// Folder of the data.
    pub data: PathBuf,
    /// Name of the server, as people see it.
    #[serde(deserialize_with = "text")]
    pub name: String,
    /// Name of this node, as `GET /api/v1/gateway` says it.
    #[serde(deserialize_with = "text")]
    pub node: String,
    /// Who may make an account.
    pub registration: RegistrationRule,
    /// Address under which browsers reach the server, where a proxy stands before it.
    pub public_url: Option<String>,
    /// Origins of other web apps that may call with bearer tokens.
    #[serde(deserialize_with = "list")]
    pub allowed_origins: Vec<String>,
    /// Addresses and networks of proxies whose `X-Forwarded-*` headers are believed.
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<Network>,
    /// Rate limits and the limit of connections.
    pub rate_limits: Switch,
    /// How often something may be done, beyond what `limits` says to clients.
    pub quotas: Quotas,
    /// Silence in milliseconds after which a client is asked for a sign of life.
    pub heartbeat_ms: u64,
    /// Days without use after which a session ends.
    pub session_idle_days: u64,
    /// Days after which a session ends in any case.
    pub session_days: u64,
    /// Milliseconds that open sockets and calls get when the server ends.
    pub shutdown_grace_ms: u64,
    /// Address of the metrics; without it they are at `/metrics` of the doors.
    pub metrics_listen: Option<SocketAddr>,
    /// File of the master key, 32 bytes; without it `secret.key` in the data folder, made at the
    /// first start.
    pub secret_file: Option<PathBuf>,
    /// Form of the log.
    pub log_format: LogFormat,
    /// Filter of the log, as `info` or `parlor_core=debug`.
    pub log: String,
    /// Every number of the contract.
    pub limits: Limits,
}

/// How often something may be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Sign-ups from one address in an hour.
    pub sign_ups_per_hour: u32,
    /// Sign-in tries for one account in 15 minutes.
    pub sign_ins_per_account: u32,
    /// Sign-in tries from one address in 15 minutes.
    pub sign_ins_per_address: u32,
    /// Look-ups of people that one account may make at once.
    pub look_ups: u32,
    /// Look-ups that come back to an account in an hour.
    pub look_ups_per_hour: u32,
    /// Typing, focus and watch frames of one user in a second.
    pub signals_per_second: u32,
    /// Connections from one address (of IPv6 one /64) that did not send a request yet.
    pub handshakes_per_address: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            sign_ups_per_hour: 30,
            sign_ins_per_account: 10,
            sign_ins_per_address: 30,
            look_ups: 50,
            look_ups_per_hour: 10,
            signals_per_second: 10,
            handshakes_per_address: 50,
        }
    }
}

/// An address, or a network of addresses as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

impl Network {
    /// Tells whether an address lies in it; an IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = |one: u128, other: u128, width: u8| {
            let shift = u32::from(width - self.bits);
            (one ^ other).checked_shr(shift).is_some_and(|above| above != 0)
        };
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                !differ(base.to_bits().into(), address.to_bits().into(), 32)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                !differ(base.to_bits(), address.to_bits(), 128)
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        let base = address.to_canonical();
        Self { base, bits: if base.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refusal = "a network is an address, or address/bits";
        let (base, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let whole = Self::from(base.parse::<IpAddr>().map_err(|_| refusal)?);
        let bits = bits.map_or(Ok(whole.bits), str::parse).map_err(|_| refusal)?;
        if bits > whole.bits { Err(refusal) } else { Ok(Self { bits, ..whole }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Reads a text; a number or a boolean of the environment is the text that was typed.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match <Value as Deserialize>::deserialize(deserializer)? {
        Value::String(_, text) => Ok(text),
        Value::Bool(_, value) => Ok(value.to_string()),
        Value::Num(_, number) => Ok(match (number.to_u128(), number.to_i128(), number.to_f64()) {
            (Some(whole), _, _) => whole.to_string(),
            (_, Some(whole), _) => whole.to_string(),
            (.., float) => float.unwrap_or_default().to_string(),
        }),
        _ => Err(de::Error::custom("expected a text")),
    }
}

/// Reads a list of texts; in the environment they stand with commas between them.
fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    let texts: Vec<String> = match <Value as Deserialize>::deserialize(deserializer)? {
        Value::String(_, text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect()
        }
        Value::Array(_, items) => {
            let text =
                |item: Value| item.into_string().ok_or_else(|| de::Error::custom("expected texts"));
            items.into_iter().map(text).collect::<Result<_, _>>()?
        }
        _ => return Err(de::Error::custom("expected a list of texts")),
    };
    let parse = |text: String| {
        text.parse().map_err(|why| de::Error::custom(format_args!("`{text}`: {why}")))
    };
    texts.into_iter().map(parse).collect()
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
            node: "node-0".to_owned(),
            registration: RegistrationRule::Open,
            public_url: None,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            rate_limits: Switch::On,
            quotas: Quotas::default(),
            heartbeat_ms: 15_000,
            session_idle_days: 30,
            session_days: 180,
            shutdown_grace_ms: 5_000,
            metrics_listen: None,
            secret_file: None,
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
    figment = figment.merge(environment());
    if let Some(listen) = flags.listen {
        figment = figment.merge(Flag::of("listen", listen.to_string()));
    }
    if let Some(data) = &flags.data {
        figment = figment.merge(Flag::of("data", data.display().to_string()));
    }
    let config: Config = figment.extract().map_err(|errors| explain(&errors))?;
    check(&config)
        .map_err(|(key, why)| format!("{key}: {why} — from {}", source(&figment, key)))?;
    Ok((config, figment))
}

/// The variables of the environment that are ours.
fn environment() -> Env {
    // Kubernetes sets PARLOR_PORT, PARLOR_SERVICE_HOST and the like for a service named parlor.
    let is_foreign = |key: &str| {
        let key = key.to_ascii_lowercase();
        matches!(key.as_str(), "config" | "port")
            || key.starts_with("port_")
            || key.starts_with("service_")
    };
    Env::prefixed("PARLOR_").filter(move |key| !is_foreign(key.as_str())).split("__")
}

/// A flag as a source of figment, under a name that an operator knows.
struct Flag(&'static str, String);

impl Flag {
    const NAME: &'static str = "flag";

    const fn of(key: &'static str, value: String) -> Self {
        Self(key, value)
    }
}

impl figment::Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named(Self::NAME)
    }

    fn data(
        &self,
    ) -> Result<figment::value::Map<figment::Profile, figment::value::Dict>, figment::Error> {
        figment::providers::Serialized::default(self.0, &self.1).data()
    }
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
    lines.push(format!("{path} = {value}    # {}", source(figment, path)));
}

/// Returns where a value comes from.
fn source(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or("default".to_owned(), |metadata| named(metadata, key))
}

fn named(metadata: &Metadata, key: &str) -> String {
    match metadata.source.as_ref().and_then(|source| source.file_path()) {
        Some(file) => format!("file {}", file.display()),
        None if metadata.name == Flag::NAME => format!("flag --{key}"),
        None if metadata.name.contains("environment") => {
            format!("environment PARLOR_{}", key.replace('.', "__").to_uppercase())
        }
        None => "default".to_owned(),
    }
}

/// Refuses what is well formed and makes no sense: the key, and why.
fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let (limits, quotas) = (&config.limits, &config.quotas);
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
        ("quotas.sign_ups_per_hour", quotas.sign_ups_per_hour),
        ("quotas.sign_ins_per_account", quotas.sign_ins_per_account),
        ("quotas.sign_ins_per_address", quotas.sign_ins_per_address),
        ("quotas.look_ups", quotas.look_ups),
        ("quotas.look_ups_per_hour", quotas.look_ups_per_hour),
        ("quotas.signals_per_second", quotas.signals_per_second),
        ("quotas.handshakes_per_address", quotas.handshakes_per_address),
    ] {
        if value == 0 {
            return Err((key, "0 would refuse everything; give at least 1".to_owned()));
        }
    }
    if limits.frame_bytes < limits.message_bytes {
        return Err(("limits.frame_bytes", "must hold a message of message_bytes".to_owned()));
    }
    if !(100..=240_000).contains(&config.heartbeat_ms) {
        return Err(("heartbeat_ms", "lies between 100 and 240000".to_owned()));
    }
    for (key, days) in
        [("session_days", config.session_days), ("session_idle_days", config.session_idle_days)]
    {
        if !(1..=36_500).contains(&days) {
            return Err((key, "lies between 1 and 36500".to_owned()));
        }
    }
    // A supervisor kills what does not end in 10 s.
    if config.shutdown_grace_ms > 8_000 {
        return Err(("shutdown_grace_ms", "is at most 8000".to_owned()));
    }
    if config.name.trim().is_empty() || config.name.chars().count() > 100 {
        return Err(("name", "has 1 to 100 characters".to_owned()));
    }
    if let Some(url) = &config.public_url
        && !is_web_address(url.strip_suffix('/').unwrap_or(url))
    {
        return Err(("public_url", "is https:// or http:// and a host, without a path".to_owned()));
    }
    if let Some(origin) = config.allowed_origins.iter().find(|origin| !is_origin(origin)) {
        return Err(("allowed_origins", format!("`{origin}` is no scheme://host in lower case")));
    }
    Ok(())
}

fn is_web_address(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(is_host)
}

/// Packaged apps have origins with schemes of their own; `*` and `null` are none.
fn is_origin(text: &str) -> bool {
    match text.split_once("://") {
        Some((scheme, host)) => {
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase()) && is_host(host)
        }
        None => false,
    }
}

fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(fits)
}

fn explain(errors: &figment::Error) -> String {
    let lines = errors.clone().into_iter().map(|error| {
        let mut path = error.path.clone();
        let why = match &error.kind {
            figment::error::Kind::UnknownField(name, _) => {
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                "there is no such key".to_owned()
            }
            kind => kind.to_string(),
        };
        let key = path.join(".");
        let source = error
            .metadata
            .as_ref()
            .map_or("the configuration".to_owned(), |metadata| named(metadata, &key));
        format!("{key}: {why} — from {source}")
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
        assert!(describe(&config, &figment).unwrap().contains("name = \"Bikes\"    # file "));

        std::fs::write(&file, "colour = \"red\"\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("colour"));
        std::fs::write(&file, "heartbeat_ms = 5\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("heartbeat_ms"));
        std::fs::write(&file, "[limits]\npage = \"many\"\n").unwrap();
        assert!(load(&flags).unwrap_err().contains("limits.page"));
    }
    #[test]
    fn networks_hold_their_addresses() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "fe80::1") && holds("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(holds("fd00::/8", "fd12::1") && !holds("fd00::/8", "fe80::1"));
    }
}
