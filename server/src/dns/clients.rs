//! Who may ask: pods and this machine. Everybody else would find an open resolver.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The ranges whose addresses may ask.
#[derive(Clone, Debug)]
pub struct Clients(Vec<(Ipv4Addr, u8)>);

impl Clients {
    /// Ranges such as `10.244.0.0/16`.
    ///
    /// # Errors
    /// One is no IPv4 CIDR.
    pub fn new(ranges: &[String]) -> anyhow::Result<Self> {
        let parse = |text: &String| {
            let (ip, bits) = text.split_once('/')?;
            Some((ip.parse().ok()?, bits.parse().ok().filter(|b| *b <= 32)?))
        };
        ranges
            .iter()
            .map(|text| parse(text).ok_or_else(|| anyhow::anyhow!("{text:?} is not an IPv4 CIDR")))
            .collect::<anyhow::Result<_>>()
            .map(Clients)
    }

    /// Whether this address may.
    pub fn may_ask(&self, client: IpAddr) -> bool {
        self.is_pod(client) || client.is_loopback() || is_local(client)
    }

    fn is_pod(&self, client: IpAddr) -> bool {
        let IpAddr::V4(client) = client.to_canonical() else { return false };
        self.0.iter().any(|(ip, bits)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(*bits)).unwrap_or(0);
            ip.to_bits() & mask == client.to_bits() & mask
        })
    }
}

/// Whether an address is one of this machine's: only those can be bound. Addresses come and go, so the kernel is asked each time.
fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_and_this_machine_may_ask_and_nobody_else() {
        let clients = Clients::new(&["10.244.0.0/16".to_owned(), "192.0.2.9/32".to_owned()]).unwrap();
        for (address, may) in
            [("10.244.3.4", true), ("127.0.0.1", true), ("::1", true), ("192.0.2.9", true), ("192.0.2.8", false), ("8.8.8.8", false)]
        {
            assert_eq!(clients.may_ask(address.parse().unwrap()), may, "{address}");
        }
        assert!(Clients::new(&["10.0.0.0/40".to_owned()]).is_err() && Clients::new(&["fd00::/8".to_owned()]).is_err());
        assert!(Clients::new(&["0.0.0.0/0".to_owned()]).unwrap().may_ask("8.8.8.8".parse().unwrap()));
    }
}
