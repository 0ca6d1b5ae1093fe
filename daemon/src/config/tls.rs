//! The keys of `[broker]` that are about TLS.

use super::Broker;
use super::check::Problems;

/// TLS writes the length of a protocol's name into one byte.
const MAX_ALPN_BYTES: usize = 255;
/// More are no list of protocols.
const MAX_ALPN: usize = 16;

impl Broker {
    /// The port that is given, or the usual one.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls { 8883 } else { 1883 })
    }

    pub(super) fn check_tls(&self, found: &mut Problems) {
        if self.tls {
            if self.host.contains(':') {
                found.add(
                    "broker.host",
                    "an IPv6 address cannot be used with TLS; give the name that is in the broker's \
                     certificate",
                );
            }
        } else {
            // Else it would go without saying that nothing is encrypted.
            let message = "has no effect without TLS; set broker.tls = true or remove the key";
            for (key, given) in [
                ("broker.ca-file", self.ca_file.is_some()),
                ("broker.client-cert-file", self.client_cert_file.is_some()),
                ("broker.client-key-file", self.client_key_file.is_some()),
                ("broker.alpn", !self.alpn.is_empty()),
            ] {
                if given {
                    found.add(key, message);
                }
            }
        }
        match (&self.client_cert_file, &self.client_key_file) {
            (Some(_), None) => found.add(
                "broker.client-key-file",
                "is missing, but there is a client-cert-file",
            ),
            (None, Some(_)) => found.add(
                "broker.client-cert-file",
                "is missing, but there is a client-key-file",
            ),
            _ => {}
        }
        let usable = |name: &String| (1..=MAX_ALPN_BYTES).contains(&name.len());
        if self.alpn.len() > MAX_ALPN || !self.alpn.iter().all(usable) {
            found.add(
                "broker.alpn",
                format!("give at most {MAX_ALPN} names of 1 to {MAX_ALPN_BYTES} bytes"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn config() -> Config {
        let mut config = Config::for_model("m");
        config.broker.tls = true;
        config
    }

    fn keys(config: &Config) -> Vec<&'static str> {
        config.problems().iter().map(|p| p.key).collect()
    }

    #[test]
    fn the_port_follows_tls_unless_given() {
        let mut broker = config().broker;
        assert_eq!(broker.port(), 8883);
        broker.tls = false;
        assert_eq!(broker.port(), 1883);
        broker.port = Some(2000);
        assert_eq!(broker.port(), 2000);
        broker.tls = true;
        assert_eq!(broker.port(), 2000);
    }

    #[test]
    fn keys_of_tls_without_tls_are_no_encryption() {
        let mut config = config();
        config.broker.ca_file = Some("ca".into());
        config.broker.client_cert_file = Some("cert".into());
        config.broker.client_key_file = Some("key".into());
        config.broker.alpn = vec!["mqtt".into()];
        assert_eq!(keys(&config), [""; 0]);
        config.broker.tls = false;
        assert_eq!(
            keys(&config),
            [
                "broker.ca-file",
                "broker.client-cert-file",
                "broker.client-key-file",
                "broker.alpn"
            ]
        );
    }

    #[test]
    fn a_certificate_and_its_key_go_together() {
        let mut one = config();
        one.broker.client_cert_file = Some("cert".into());
        assert_eq!(keys(&one), ["broker.client-key-file"]);
        let mut other = config();
        other.broker.client_key_file = Some("key".into());
        assert_eq!(keys(&other), ["broker.client-cert-file"]);
    }

    #[test]
    fn an_ipv6_address_needs_a_name() {
        let mut config = config();
        for host in ["::1", "[fe80::1]"] {
            config.broker.host = host.into();
            assert_eq!(keys(&config), ["broker.host"]);
        }
        config.broker.tls = false;
        assert_eq!(keys(&config), [""; 0]);
    }

    #[test]
    fn names_of_protocols_fit_their_field() {
        let mut config = config();
        config.broker.alpn = vec!["x".repeat(255)];
        assert_eq!(keys(&config), [""; 0]);
        for bad in [
            vec![String::new()],
            vec!["x".repeat(256)],
            vec!["x".into(); 17],
        ] {
            config.broker.alpn = bad;
            assert_eq!(keys(&config), ["broker.alpn"]);
        }
    }
}
