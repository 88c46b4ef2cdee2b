//! The maps of the table, and the chains that look them up: all that is the same however many Services there are. Pure.

use super::model::Protocol;

/// Packet mark of what is to be masqueraded, kube-proxy's own.
pub const MARK: &str = "0x4000";

/// A map or set of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Map {
    /// Backends by address, protocol, port and number; a map a protocol.
    Backends(Protocol),
    /// Backends for packets from outside, likewise.
    OutsideBackends(Protocol),
    /// Backends by protocol, node port and number, likewise.
    PortBackends(Protocol),
    /// Backends for packets from outside, likewise.
    OutsidePortBackends(Protocol),
    /// Verdicts by address, protocol and port.
    Services,
    /// Verdicts for packets from outside, which come first.
    OutsideServices,
    /// Verdicts by protocol and node port.
    Ports,
    /// Verdicts for packets from outside, which come first.
    OutsidePorts,
    /// Addresses without endpoints, outside the service range.
    RefusedServices,
    /// Node ports without endpoints.
    RefusedPorts,
    /// Addresses that not everybody may reach.
    Guarded,
    /// Those addresses with the ranges that may.
    Allowed,
    /// Pairs of an endpoint with itself: a pod that reached itself through a Service.
    Hairpin,
}

/// Maps and sets of which there is one.
pub const SINGLE: [Map; 9] = [
    Map::Services,
    Map::OutsideServices,
    Map::Ports,
    Map::OutsidePorts,
    Map::RefusedServices,
    Map::RefusedPorts,
    Map::Guarded,
    Map::Allowed,
    Map::Hairpin,
];
/// Maps of which there is one a protocol.
pub const BY_PROTOCOL: [fn(Protocol) -> Map; 4] = [Map::Backends, Map::OutsideBackends, Map::PortBackends, Map::OutsidePortBackends];
pub const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

impl Map {
    /// nft's name of it.
    pub fn name(self) -> String {
        let name = match self {
            Map::Backends(_) => "backends",
            Map::OutsideBackends(_) => "outside-backends",
            Map::PortBackends(_) => "port-backends",
            Map::OutsidePortBackends(_) => "outside-port-backends",
            Map::Services => "services",
            Map::OutsideServices => "outside-services",
            Map::Ports => "ports",
            Map::OutsidePorts => "outside-ports",
            Map::RefusedServices => "refused-services",
            Map::RefusedPorts => "refused-ports",
            Map::Guarded => "guarded",
            Map::Allowed => "allowed",
            Map::Hairpin => "hairpin",
        };
        match self {
            Map::Backends(p) | Map::OutsideBackends(p) | Map::PortBackends(p) | Map::OutsidePortBackends(p) => format!("{name}-{}", p.keyword()),
            _ => name.to_owned(),
        }
    }

    /// Whether it is a set or a map, and of what.
    pub fn declaration(self) -> (&'static str, String) {
        match self {
            // nft 1.0.6 takes `th dport` as the type of the value, but later no rule that looks the map up ("conflicting protocols
            // specified: ip vs. th"); with a protocol's own port, it makes the rule match that protocol only. So: a map each.
            Map::Backends(p) | Map::OutsideBackends(p) => {
                ("map", format!("ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . {} dport", p.keyword()))
            }
            Map::PortBackends(p) | Map::OutsidePortBackends(p) => {
                ("map", format!("meta l4proto . th dport . numgen random mod 2 : ip daddr . {} dport", p.keyword()))
            }
            Map::Services | Map::OutsideServices => ("map", "ip daddr . meta l4proto . th dport : verdict".into()),
            Map::Ports | Map::OutsidePorts => ("map", "meta l4proto . th dport : verdict".into()),
            Map::Allowed => ("set", "ip daddr . meta l4proto . th dport . ip saddr; flags interval".into()),
            Map::RefusedServices | Map::Guarded => ("set", "ip daddr . meta l4proto . th dport".into()),
            Map::RefusedPorts => ("set", "meta l4proto . th dport".into()),
            Map::Hairpin => ("set", "ip saddr . ip daddr".into()),
        }
    }
}

/// How packets are spread over a number of backends: the chains `<prefix><number>`, made when first needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// To an address, source kept.
    Plain,
    /// To an address of a load balancer, masqueraded.
    Masqueraded,
    /// To an address that keeps to the node, from within.
    Within,
    /// To an address that keeps to the node, from outside.
    Outside,
    /// To a node port, masqueraded.
    Port,
    /// To a node port that keeps to the node, from within.
    PortWithin,
    /// To a node port that keeps to the node, from outside.
    PortOutside,
}

impl Spread {
    /// The chain for so many backends.
    pub fn chain(self, count: usize) -> String {
        let prefix = match self {
            Spread::Plain => "to",
            Spread::Masqueraded => "masq-to",
            Spread::Within => "within-to",
            Spread::Outside => "outside-to",
            Spread::Port => "port-to",
            Spread::PortWithin => "port-within-to",
            Spread::PortOutside => "port-outside-to",
        };
        format!("{prefix}-{count}")
    }

    /// That chain's rules, a line each.
    pub fn rules(self, count: usize) -> String {
        let (by_port, map): (bool, fn(Protocol) -> Map) = match self {
            Spread::Plain | Spread::Masqueraded | Spread::Within => (false, Map::Backends),
            Spread::Outside => (false, Map::OutsideBackends),
            Spread::Port | Spread::PortWithin => (true, Map::PortBackends),
            Spread::PortOutside => (true, Map::OutsidePortBackends),
        };
        let key = if by_port { "meta l4proto . th dport" } else { "ip daddr . meta l4proto . th dport" };
        let rule = |p: Protocol| format!("meta l4proto {} dnat ip to {key} . numgen random mod {count} map @{}\n", p.keyword(), map(p).name());
        self.prelude() + &PROTOCOLS.map(rule).concat()
    }

    /// What is done before the destination changes.
    pub fn prelude(self) -> String {
        match self {
            Spread::Plain | Spread::Outside | Spread::PortOutside => String::new(),
            Spread::Masqueraded | Spread::Port => format!("meta mark set meta mark or {MARK}\n"),
            // Packets of this host need it, those of pods keep their source.
            Spread::Within | Spread::PortWithin => format!("fib saddr type local meta mark set meta mark or {MARK}\n"),
        }
    }
}
