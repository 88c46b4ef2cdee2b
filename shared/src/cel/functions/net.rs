//! IP addresses and CIDRs (`k8s.io/apiserver/pkg/cel/library/ip.go`, `cidr.go`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Function, Result, no_overload};
use crate::cel::EvalError;
use crate::cel::value::Value;

/// An address and how many of its bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    fn parse(text: &str) -> Result<Self> {
        let bad = || EvalError::new(format!("CIDR {text:?} parse error during conversion from string: no '/'"));
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address = parse_ip(address)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let plain = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) && (prefix == "0" || !prefix.starts_with('0'));
        match prefix.parse() {
            Ok(prefix) if plain && prefix <= bits => Ok(Cidr { address, prefix }),
            _ => Err(EvalError::new(format!(
                "network address parse error during conversion from string: netip.ParsePrefix({text:?}): bad bits after slash: {prefix:?}"
            ))),
        }
    }

    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from_bits(a.to_bits() & u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))),
            IpAddr::V6(a) => IpAddr::V6(Ipv6Addr::from_bits(a.to_bits() & u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0))),
        };
        Cidr { address, prefix: self.prefix }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Cidr { address, prefix: self.prefix }.masked() == self.masked()
    }
}

/// Go's `netip.ParseAddr`, without zones and without IPv4 in IPv6, which Kubernetes refuses both.
fn parse_ip(text: &str) -> Result<IpAddr> {
    let bad = |why: &str| EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"));
    if text.contains('%') {
        return Err(bad("IP address with zone value is not allowed"));
    }
    let address: IpAddr = text.parse().map_err(|_| bad(&format!("ParseAddr({text:?}): unable to parse IP")))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(bad("IPv4-mapped IPv6 address is not allowed")),
        other => Ok(other),
    }
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "ip" => |_, a| match a {
            [Value::String(s)] => parse_ip(s).map(Value::Ip),
            [Value::Cidr(cidr)] => Ok(Value::Ip(cidr.address)),
            _ => no_overload(),
        },
        "isIP" => |_, a| match a {
            [Value::String(s)] => Ok(Value::Bool(parse_ip(s).is_ok())),
            _ => no_overload(),
        },
        "ip.isCanonical" => |_, a| match a {
            [Value::String(s)] => Ok(Value::Bool(parse_ip(s)?.to_string() == s.as_ref())),
            _ => no_overload(),
        },
        "family" => |_, a| match a {
            [Value::Ip(ip)] => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
            _ => no_overload(),
        },
        "isUnspecified" => |_, a| ip(a, |ip| ip.is_unspecified()),
        "isLoopback" => |_, a| ip(a, |ip| ip.is_loopback()),
        "isLinkLocalMulticast" => |_, a| {
            ip(a, |ip| match ip {
                IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
                IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
            })
        },
        "isLinkLocalUnicast" => |_, a| ip(a, link_local),
        "isGlobalUnicast" => |_, a| {
            ip(a, |ip| {
                let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
                !(broadcast || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip))
            })
        },
        "cidr" => |_, a| match a {
            [Value::String(s)] => Cidr::parse(s).map(Value::Cidr),
            _ => no_overload(),
        },
        "isCIDR" => |_, a| match a {
            [Value::String(s)] => Ok(Value::Bool(Cidr::parse(s).is_ok())),
            _ => no_overload(),
        },
        "containsIP" => |_, a| match a {
            [Value::Cidr(cidr), Value::Ip(ip)] => Ok(Value::Bool(cidr.contains(*ip))),
            [Value::Cidr(cidr), Value::String(s)] => Ok(Value::Bool(cidr.contains(parse_ip(s)?))),
            _ => no_overload(),
        },
        "containsCIDR" => |_, a| {
            let (outer, inner) = match a {
                [Value::Cidr(outer), Value::Cidr(inner)] => (*outer, *inner),
                [Value::Cidr(outer), Value::String(s)] => (*outer, Cidr::parse(s)?),
                _ => return no_overload(),
            };
            Ok(Value::Bool(outer.prefix <= inner.prefix && outer.contains(inner.masked().address)))
        },
        "masked" => |_, a| match a {
            [Value::Cidr(cidr)] => Ok(Value::Cidr(cidr.masked())),
            _ => no_overload(),
        },
        "prefixLength" => |_, a| match a {
            [Value::Cidr(cidr)] => Ok(Value::Int(i64::from(cidr.prefix))),
            _ => no_overload(),
        },
        _ => return None,
    })
}

fn ip(args: &[Value], holds: fn(IpAddr) -> bool) -> Result {
    match args {
        [Value::Ip(ip)] => Ok(Value::Bool(holds(*ip))),
        _ => no_overload(),
    }
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
