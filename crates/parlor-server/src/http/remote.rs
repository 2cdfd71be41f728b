//! Where a call comes from: the client's address, and the scheme and host by which it came.
//!
//! Forwarded headers are believed from `trusted_proxies` only (security C18). The outermost layer
//! finds this out once per request; everything else asks it here.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, header, request::Parts};
use parlor_proto::ErrorCode;

use crate::{
    config::{Config, Network},
    error::Refusal,
};

/// The address at the other end of the TCP connection; put there by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// Where a call comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The client's address, after trusted proxies.
    pub address: IpAddr,
    /// The client's own connection is encrypted, as far as that can be believed.
    pub is_secure: bool,
    /// Host and port by which the client came, where they are well formed.
    pub host: Option<String>,
    /// The header `Origin` of a browser, whatever it says.
    pub origin: Option<String>,
}

impl Remote {
    /// Finds out where a request comes from.
    pub fn find(config: &Config, parts: &Parts) -> Self {
        let peer = parts.extensions.get::<PeerAddress>();
        // A request without a peer did not come from the accept loop: it is nobody's.
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.to_canonical());
        let is_proxy = is_trusted(&config.trusted_proxies, peer);
        let forwarded = |name| last(&parts.headers, name).filter(|_| is_proxy);
        let public = config.public_url.as_deref().map(|url| url.strip_suffix('/').unwrap_or(url));
        let is_secure = forwarded("x-forwarded-proto").map_or_else(
            || public.is_some_and(|url| url.starts_with("https://")),
            |proto| proto == "https",
        );
        let host = public
            .and_then(|url| Some(url.split_once("://")?.1))
            .or_else(|| forwarded("x-forwarded-host"))
            .or_else(|| parts.headers.get(header::HOST)?.to_str().ok())
            .filter(|host| is_host(host))
            .map(str::to_owned);
        let origin = parts.headers.get(header::ORIGIN);
        Self {
            address: client_address(&config.trusted_proxies, peer, &parts.headers),
            is_secure,
            host,
            origin: origin.map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned()),
        }
    }

    /// Returns what the outermost layer found.
    pub fn of(parts: &Parts) -> Result<Self, Refusal> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or(Refusal::new(ErrorCode::Internal, "the peer is not known"))
    }

    /// Tells whether the call comes from a page of another origin, as far as its browser says.
    pub fn is_from_another_origin(&self) -> bool {
        self.origin.as_deref().is_some_and(|origin| !self.is_own_origin(origin))
    }

    /// Refuses a socket to a page of an origin that is neither the own nor an allowed one.
    pub fn check_origin(&self, config: &Config) -> Result<(), Refusal> {
        let Some(origin) = self.origin.as_deref() else { return Ok(()) };
        if self.is_own_origin(origin) || config.allowed_origins.iter().any(|own| own == origin) {
            return Ok(());
        }
        Err(Refusal::new(ErrorCode::OriginRefused, "this origin may not open a socket here"))
    }

    /// Returns scheme and host by which a socket is opened.
    pub fn socket_origin(&self) -> Option<String> {
        let scheme = if self.is_secure { "wss" } else { "ws" };
        self.host.as_ref().map(|host| format!("{scheme}://{host}"))
    }

    fn is_own_origin(&self, origin: &str) -> bool {
        let Some(host) = self.host.as_deref() else { return false };
        let (bare, port) = match origin.split_once("://") {
            Some(("https", bare)) => (bare, ":443"),
            // A proxy that nobody named may speak https without our knowing, never the other way.
            Some(("http", bare)) if !self.is_secure => (bare, ":80"),
            _ => return false,
        };
        bare == host || host.strip_suffix(port) == Some(bare)
    }
}

/// The text goes into a policy and into addresses: a name and a port, nothing else.
fn is_host(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
}

/// The right-most hop that is no trusted proxy; what it claims about others is not believed.
fn client_address(trusted: &[Network], peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !is_trusted(trusted, peer) {
        // A proxy on this machine that nobody named hides who calls: such a caller is not local.
        let hides = ["x-forwarded-for", "forwarded", "x-real-ip"];
        let is_hidden = peer.is_loopback() && hides.iter().any(|name| headers.contains_key(*name));
        return if is_hidden { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { peer };
    }
    let lines = headers.get_all("x-forwarded-for").iter();
    let hops: Vec<&str> =
        lines.flat_map(|line| line.to_str().unwrap_or("?").split(',').map(str::trim)).collect();
    let mut address = peer;
    for hop in hops.into_iter().rev() {
        // Beyond what cannot be read, everything may be forged.
        let Some(next) = parse_hop(hop) else { break };
        address = next;
        if !is_trusted(trusted, address) {
            break;
        }
    }
    address
}

/// Reads an address, with a port or in brackets too.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    let with_port = || text.parse().ok().map(|address: std::net::SocketAddr| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = text.parse().ok().or_else(with_port).or_else(in_brackets);
    address.map(|address: IpAddr| address.to_canonical())
}

fn is_trusted(trusted: &[Network], address: IpAddr) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The last value of a header: the one that the nearest proxy wrote.
fn last<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let line = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    line.rsplit(',').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found for a peer with these headers.
    fn remote(config: &Config, peer: &str, headers: &[(&'static str, &str)]) -> Remote {
        let mut request = http::Request::new(());
        request.extensions_mut().insert(PeerAddress(peer.parse().unwrap()));
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        Remote::find(config, &request.into_parts().0)
    }

    fn behind(proxy: &str) -> Config {
        Config { trusted_proxies: vec![proxy.parse().unwrap()], ..Config::default() }
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let config = behind("10.0.0.0/8");
        for (peer, header, client) in [
            ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
            ("10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
            ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
            ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
            ("10.0.0.1", "\"[2001:db8::1]\"", "2001:db8::1"),
            ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"),
            ("10.0.0.1", "198.51.100.1,", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ] {
            let found = remote(&config, peer, &[("x-forwarded-for", header)]);
            assert_eq!(found.address, client.parse::<IpAddr>().unwrap(), "{peer} {header}");
        }
        let two = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "203.0.113.9")];
        assert_eq!(remote(&config, "10.0.0.1", &two).address.to_string(), "203.0.113.9");
    }

    #[test]
    fn a_caller_behind_a_proxy_that_nobody_named_is_not_local() {
        let config = Config::default();
        assert!(remote(&config, "127.0.0.1", &[]).address.is_loopback());
        for name in ["x-forwarded-for", "forwarded", "x-real-ip"] {
            let found = remote(&config, "127.0.0.1", &[(name, "127.0.0.1")]);
            assert!(!found.address.is_loopback(), "{name}");
        }
    }

    #[test]
    fn scheme_and_host_come_from_the_proxy_or_the_public_address() {
        let forwarded = [
            ("host", "inner:8080"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "chat.example"),
        ];
        let found = remote(&behind("10.0.0.1"), "10.0.0.1", &forwarded);
        assert_eq!(found.socket_origin().as_deref(), Some("wss://chat.example"));
        let found = remote(&behind("10.0.0.1"), "192.0.2.7", &forwarded);
        assert_eq!(found.socket_origin().as_deref(), Some("ws://inner:8080"));
        let config =
            Config { public_url: Some("https://chat.example/".to_owned()), ..Config::default() };
        let found = remote(&config, "192.0.2.7", &[("host", "whatever")]);
        assert_eq!(found.socket_origin().as_deref(), Some("wss://chat.example"));
        let found = remote(&Config::default(), "192.0.2.7", &[("host", "a b;script-src *")]);
        assert_eq!(found.host, None);
    }

    #[test]
    fn sockets_open_for_the_own_and_allowed_origins_only() {
        let config =
            Config { allowed_origins: vec!["https://app.example".to_owned()], ..Config::default() };
        let may = |config: &Config, host: &str, origin: &str| {
            let headers = [("host", host), ("origin", origin)];
            remote(config, "192.0.2.7", &headers).check_origin(config).is_ok()
        };
        for (origin, allowed) in [
            ("http://chat.example", true),
            ("https://chat.example", true),
            ("https://app.example", true),
            ("https://app.example.evil.example", false),
            ("https://evil-app.example", false),
            ("http://app.example", false),
            ("http://chat.example:81", false),
            ("http://chat.example:80", false),
            ("http://chat.example.", false),
            ("http://CHAT.example", false),
            ("http://sub.chat.example", false),
            ("ftp://chat.example", false),
            ("chat.example", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(may(&config, "chat.example", origin), allowed, "{origin}");
        }
        assert!(may(&config, "chat.example:80", "http://chat.example"));
        assert!(may(&config, "chat.example:8080", "http://chat.example:8080"));
        let public = Config { public_url: Some("https://chat.example".to_owned()), ..config };
        assert!(may(&public, "inner", "https://chat.example"));
        assert!(!may(&public, "inner", "http://chat.example") && !may(&public, "x", "http://x"));
        let none = remote(&public, "192.0.2.7", &[("host", "chat.example")]);
        assert!(none.check_origin(&public).is_ok() && !none.is_from_another_origin());
    }
}
