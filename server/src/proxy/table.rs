//! The nftables table: what is in it, its full text, and the text of a change (`pkg/proxy/nftables/README.md` for the ideas).
//!
//! Flat maps keep updates small: a frontend's verdict says only *how many* backends there are, and one map holds the backends of
//! all, so no Service but those with client affinity has a chain of its own. Pure: running `nft` is [`super::nft`]'s part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::maps::{BY_PROTOCOL, MARK, Map, PROTOCOLS, SINGLE, Spread};
use super::model::{Backend, Fragment, Frontend, Route, Target};

/// The chains of one frontend with client affinity.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Affine {
    seconds: u32,
    backends: BTreeSet<Backend>,
    prelude: String,
}

/// An element's address: its map and key.
type Slot = (Map, String);
/// Namespace and name of a Service.
pub type Owner = (String, String);

/// One Service's share of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Share {
    elements: BTreeMap<Slot, String>,
    chains: BTreeSet<(Spread, usize)>,
    affine: BTreeMap<String, Affine>,
}

/// Addresses that the table is built around.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// Name of the table.
    pub table: String,
    /// Pods of the whole cluster.
    pub cluster_cidr: String,
    /// Services.
    pub service_cidr: String,
}

/// The wanted contents of the table, and what has changed since [`Table::take_changes`].
pub struct Table {
    ranges: Ranges,
    shares: BTreeMap<Owner, Share>,
    /// Who wants an element, and with which value. Services may share one; the first by name decides.
    elements: HashMap<Slot, BTreeMap<Owner, String>>,
    chains: BTreeSet<(Spread, usize)>,
    changes: Changes,
}

#[derive(Default)]
struct Changes {
    /// Values before the change.
    elements: BTreeMap<Slot, Option<String>>,
    chains: BTreeSet<(Spread, usize)>,
    affine: BTreeMap<String, (Option<Affine>, Option<Affine>)>,
}

fn hashed(value: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn frontend_key(frontend: Frontend) -> String {
    match frontend {
        Frontend::Cluster { ip, protocol, port } | Frontend::Balancer { ip, protocol, port } => format!("{ip} . {} . {port}", protocol.keyword()),
        Frontend::NodePort { protocol, port } => format!("{} . {port}", protocol.keyword()),
    }
}

fn share(fragment: &Fragment) -> Share {
    let mut share = Share::default();
    for route in &fragment.routes {
        add_route(&mut share, route);
    }
    share
}

fn add_route(share: &mut Share, route: &Route) {
    let key = frontend_key(route.frontend);
    let keeps_source = route.outside.is_some();
    let protocol = route.frontend.protocol();
    if let Some(sources) = &route.sources {
        share.elements.insert((Map::Guarded, key.clone()), String::new());
        for (ip, bits) in sources {
            share.elements.insert((Map::Allowed, format!("{key} . {ip}/{bits}")), String::new());
        }
    }
    let (verdicts, backends, spread, refused) = match route.frontend {
        Frontend::Cluster { .. } => (Map::Services, Map::Backends(protocol), Spread::Plain, None),
        Frontend::Balancer { .. } => {
            (Map::Services, Map::Backends(protocol), if keeps_source { Spread::Within } else { Spread::Masqueraded }, Some(Map::RefusedServices))
        }
        Frontend::NodePort { .. } => {
            (Map::Ports, Map::PortBackends(protocol), if keeps_source { Spread::PortWithin } else { Spread::Port }, Some(Map::RefusedPorts))
        }
    };
    add_target(share, &key, &route.target, route.affinity, (verdicts, backends, spread), refused);
    if let Some(outside) = &route.outside {
        let maps = match route.frontend {
            Frontend::NodePort { .. } => (Map::OutsidePorts, Map::OutsidePortBackends(protocol), Spread::PortOutside),
            _ => (Map::OutsideServices, Map::OutsideBackends(protocol), Spread::Outside),
        };
        add_target(share, &key, outside, route.affinity, maps, None);
    }
}

fn add_target(share: &mut Share, key: &str, target: &Target, affinity: Option<u32>, maps: (Map, Map, Spread), refused: Option<Map>) {
    let (verdicts, numbered, spread) = maps;
    let backends = match target {
        Target::Backends(backends) => backends,
        Target::Drop => {
            share.elements.insert((verdicts, key.to_owned()), "drop".into());
            return;
        }
        Target::Refuse => {
            // Addresses in the service range that no verdict catches are refused all together.
            if let Some(refused) = refused {
                share.elements.insert((refused, key.to_owned()), String::new());
            }
            return;
        }
    };
    for backend in backends {
        share.elements.insert((Map::Hairpin, format!("{0} . {0}", backend.ip)), String::new());
    }
    let chain = match affinity {
        Some(seconds) => {
            let affine = Affine { seconds, backends: backends.clone(), prelude: spread.prelude() };
            let name = format!("affine-{}", hashed((key, verdicts)));
            share.affine.insert(name.clone(), affine);
            name
        }
        None => {
            for (number, backend) in backends.iter().enumerate() {
                share.elements.insert((numbered, format!("{key} . {number}")), format!("{} . {}", backend.ip, backend.port));
            }
            share.chains.insert((spread, backends.len()));
            spread.chain(backends.len())
        }
    };
    share.elements.insert((verdicts, key.to_owned()), format!("goto {chain}"));
}

impl Affine {
    fn set(&self, chain: &str, backend: &Backend) -> String {
        format!("clients-{}", hashed((chain, backend, self.seconds)))
    }
    fn backend_chain(&self, chain: &str, backend: &Backend) -> String {
        format!("backend-{}", hashed((chain, backend, self.seconds)))
    }
    fn names(&self, chain: &str) -> BTreeSet<(String, String)> {
        self.backends.iter().map(|b| (self.set(chain, b), self.backend_chain(chain, b))).collect()
    }

    /// Declares its sets and chains; harmless when they exist.
    fn declare(&self, table: &str, chain: &str, out: &mut String) {
        for (set, backend) in self.names(chain) {
            let _ = writeln!(out, "add set ip {table} {set} {{ type ipv4_addr; size 65536; flags dynamic,timeout; timeout {}s; }}", self.seconds);
            let _ = writeln!(out, "add chain ip {table} {backend}");
        }
        let _ = writeln!(out, "add chain ip {table} {chain}");
    }

    /// Fills its chains.
    fn fill(&self, table: &str, chain: &str, out: &mut String) {
        let _ = writeln!(out, "flush chain ip {table} {chain}");
        for line in self.prelude.lines() {
            let _ = writeln!(out, "add rule ip {table} {chain} {line}");
        }
        for backend in &self.backends {
            let (set, to) = (self.set(chain, backend), self.backend_chain(chain, backend));
            let _ = writeln!(out, "flush chain ip {table} {to}");
            let _ = writeln!(out, "add rule ip {table} {to} update @{set} {{ ip saddr }}");
            let _ = writeln!(out, "add rule ip {table} {to} meta l4proto {{ tcp, udp, sctp }} dnat to {}:{}", backend.ip, backend.port);
            let _ = writeln!(out, "add rule ip {table} {chain} ip saddr @{set} goto {to}");
        }
        let choices: Vec<String> = self.backends.iter().enumerate().map(|(i, b)| format!("{i} : goto {}", self.backend_chain(chain, b))).collect();
        let _ = writeln!(out, "add rule ip {table} {chain} numgen random mod {} vmap {{ {} }}", choices.len(), choices.join(", "));
    }
}

impl Table {
    /// An empty table.
    pub fn new(ranges: Ranges) -> Self {
        Table { ranges, shares: BTreeMap::new(), elements: HashMap::new(), chains: BTreeSet::new(), changes: Changes::default() }
    }

    /// Takes a Service's new meaning; `None` when it is gone. Returns whether anything changed.
    pub fn set(&mut self, owner: &Owner, fragment: Option<&Fragment>) -> bool {
        let new = fragment.map(share).unwrap_or_default();
        let old = self.shares.get(owner).cloned().unwrap_or_default();
        if old == new {
            return false;
        }
        for slot in old.elements.keys().filter(|slot| !new.elements.contains_key(*slot)) {
            self.set_element(slot, owner, None);
        }
        for (slot, value) in new.elements.iter().filter(|(slot, value)| old.elements.get(*slot) != Some(value)) {
            self.set_element(slot, owner, Some(value.clone()));
        }
        for chain in &new.chains {
            if self.chains.insert(*chain) {
                self.changes.chains.insert(*chain);
            }
        }
        let names: BTreeSet<&String> = old.affine.keys().chain(new.affine.keys()).collect();
        for name in names {
            let (before, after) = (old.affine.get(name), new.affine.get(name));
            if before != after {
                let change = self.changes.affine.entry(name.clone()).or_insert_with(|| (before.cloned(), None));
                change.1 = after.cloned();
            }
        }
        if new == Share::default() {
            self.shares.remove(owner);
        } else {
            self.shares.insert(owner.clone(), new);
        }
        true
    }

    fn set_element(&mut self, slot: &Slot, owner: &Owner, value: Option<String>) {
        let wanted = self.elements.entry(slot.clone()).or_default();
        let before = wanted.values().next().cloned();
        match value {
            Some(value) => wanted.insert(owner.clone(), value),
            None => wanted.remove(owner),
        };
        if wanted.is_empty() {
            self.elements.remove(slot);
        }
        self.changes.elements.entry(slot.clone()).or_insert(before);
    }

    fn value(&self, slot: &Slot) -> Option<&String> {
        self.elements.get(slot).and_then(|wanted| wanted.values().next())
    }

    /// The whole table, in one transaction that replaces whatever was there.
    pub fn full(&mut self) -> String {
        self.changes = Changes::default();
        let mut out = self.skeleton();
        let table = self.ranges.table.clone();
        self.chains = self.shares.values().flat_map(|s| s.chains.iter().copied()).collect();
        define_chains(&table, &self.chains, &mut out);
        let affine: Vec<(&String, &Affine)> = self.shares.values().flat_map(|s| &s.affine).collect();
        affine.iter().for_each(|(name, a)| a.declare(&table, name, &mut out));
        affine.iter().for_each(|(name, a)| a.fill(&table, name, &mut out));
        let mut added: BTreeMap<Map, Vec<String>> = BTreeMap::new();
        for slot in self.elements.keys() {
            added.entry(slot.0).or_default().extend(self.value(slot).map(|v| element(&slot.1, v)));
        }
        write_elements("add", &table, &added, &mut out);
        out
    }

    /// The transaction that brings what was loaded last up to date; `None` when nothing changed.
    pub fn take_changes(&mut self) -> Option<String> {
        let changes = std::mem::take(&mut self.changes);
        let table = &self.ranges.table;
        let mut out = String::new();
        define_chains(table, &changes.chains, &mut out);
        for (name, (_, after)) in &changes.affine {
            if let Some(after) = after {
                after.declare(table, name, &mut out);
                after.fill(table, name, &mut out);
            }
        }
        let (mut removed, mut added): (BTreeMap<Map, Vec<String>>, BTreeMap<Map, Vec<String>>) = Default::default();
        for (slot, before) in &changes.elements {
            let after = self.value(slot);
            if before.as_ref() == after {
                continue;
            }
            if before.is_some() {
                removed.entry(slot.0).or_default().push(slot.1.clone());
            }
            added.entry(slot.0).or_default().extend(after.map(|v| element(&slot.1, v)));
        }
        write_elements("delete", table, &removed, &mut out);
        write_elements("add", table, &added, &mut out);
        for (name, (before, after)) in &changes.affine {
            let kept = after.as_ref().map(|a| a.names(name)).unwrap_or_default();
            if after.is_none() && before.is_some() {
                let _ = writeln!(out, "flush chain ip {table} {name}\ndelete chain ip {table} {name}");
            }
            for (set, chain) in before.as_ref().map(|b| b.names(name)).unwrap_or_default().difference(&kept) {
                let _ = writeln!(out, "flush chain ip {table} {chain}\ndelete chain ip {table} {chain}\ndelete set ip {table} {set}");
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// The table without any Service: maps, hooks and what holds for all packets.
    fn skeleton(&self) -> String {
        let Ranges { table, cluster_cidr, service_cidr } = &self.ranges;
        let mut out = format!("add table ip {table}\ndelete table ip {table}\nadd table ip {table}\n");
        for map in SINGLE.into_iter().chain(PROTOCOLS.into_iter().flat_map(|p| BY_PROTOCOL.map(|map| map(p)))) {
            let (kind, types) = map.declaration();
            let _ = writeln!(out, "add {kind} ip {table} {} {{ typeof {types}; }}", map.name());
        }
        let _ = write!(
            out,
            r#"table ip {table} {{
 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject with icmp type port-unreachable
 }}
 chain masquerade-marked {{
  meta mark set meta mark xor {MARK}
  masquerade fully-random
 }}
 chain to-ports {{
  ip saddr != {cluster_cidr} fib saddr type != local meta l4proto . th dport vmap @outside-ports
  meta l4proto . th dport vmap @ports
 }}
 chain to-services {{
  ip daddr . meta l4proto . th dport @guarded ip daddr . meta l4proto . th dport . ip saddr != @allowed drop
  ip daddr {service_cidr} ip saddr != {cluster_cidr} meta mark set meta mark or {MARK}
  ip saddr != {cluster_cidr} fib saddr type != local ip daddr . meta l4proto . th dport vmap @outside-services
  ip daddr . meta l4proto . th dport vmap @services
  fib daddr type local ip daddr != 127.0.0.0/8 jump to-ports
 }}
 chain prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  jump to-services
 }}
 chain output {{
  type nat hook output priority -100; policy accept;
  jump to-services
 }}
 chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  meta mark and {MARK} == {MARK} jump masquerade-marked
  ct status dnat ip saddr . ip daddr @hairpin masquerade fully-random
  ip saddr {cluster_cidr} ip daddr != {{ {cluster_cidr}, 224.0.0.0/4 }} masquerade fully-random
 }}
 chain refusals {{
  ip daddr {service_cidr} goto refuse
  ip daddr . meta l4proto . th dport @refused-services goto refuse
 }}
 chain port-refusals {{
  meta l4proto . th dport @refused-ports fib daddr type local ip daddr != 127.0.0.0/8 goto refuse
 }}
 chain filter-forward {{
  type filter hook forward priority filter; policy accept;
  ct state new jump refusals
 }}
 chain filter-output {{
  type filter hook output priority filter; policy accept;
  ct state new jump refusals
  ct state new jump port-refusals
 }}
 chain filter-input {{
  type filter hook input priority filter; policy accept;
  ct state new jump refusals
  ct state new jump port-refusals
 }}
}}
"#
        );
        out
    }
}

fn element(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key} : {value}") }
}

fn define_chains(table: &str, chains: &BTreeSet<(Spread, usize)>, out: &mut String) {
    for (spread, count) in chains {
        let name = spread.chain(*count);
        let _ = writeln!(out, "add chain ip {table} {name}");
        for line in spread.rules(*count).lines() {
            let _ = writeln!(out, "add rule ip {table} {name} {line}");
        }
    }
}

fn write_elements(verb: &str, table: &str, elements: &BTreeMap<Map, Vec<String>>, out: &mut String) {
    for (map, texts) in elements.iter().filter(|(_, texts)| !texts.is_empty()) {
        let _ = writeln!(out, "{verb} element ip {table} {} {{ {} }}", map.name(), texts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::super::model::Protocol;
    use super::*;

    fn table() -> Table {
        Table::new(Ranges { table: "t".into(), cluster_cidr: "10.244.0.0/16".into(), service_cidr: "10.96.0.0/12".into() })
    }

    fn backends(ips: &[u8]) -> Target {
        if ips.is_empty() {
            return Target::Refuse;
        }
        Target::Backends(ips.iter().map(|i| Backend { ip: Ipv4Addr::new(10, 244, 0, *i), port: 8080 }).collect())
    }

    fn fragment(last: u8, ips: &[u8], affinity: Option<u32>) -> Fragment {
        let cluster = Frontend::Cluster { ip: Ipv4Addr::new(10, 96, 0, last), protocol: Protocol::Tcp, port: 80 };
        let port = Frontend::NodePort { protocol: Protocol::Udp, port: 30000 + u16::from(last) };
        let route = |frontend, outside| Route { frontend, target: backends(ips), outside, affinity, sources: None };
        Fragment { routes: vec![route(cluster, None), route(port, Some(backends(&ips[..ips.len().min(1)])))] }
    }

    fn owner(name: u8) -> Owner {
        ("default".into(), format!("s{name}"))
    }

    /// What nft would hold: elements, chains and sets. Panics where nft would refuse.
    #[derive(Default, PartialEq, Debug)]
    struct Kernel {
        elements: BTreeMap<(String, String), String>,
        chains: BTreeMap<String, Vec<String>>,
        sets: BTreeSet<String>,
    }

    impl Kernel {
        fn run(&mut self, text: &str) {
            for line in text.lines() {
                let words: Vec<&str> = line.split_whitespace().collect();
                let inner = || line.split_once('{').map(|(_, rest)| rest.trim_end_matches('}').trim());
                match words.as_slice() {
                    ["delete", "table", ..] => *self = Kernel::default(),
                    ["add", "element", _, _, map, ..] => {
                        for item in inner().unwrap().split(", ") {
                            let (key, value) = item.split_once(" : ").unwrap_or((item, ""));
                            let before = self.elements.insert(((*map).into(), key.into()), value.into());
                            assert!(before.is_none_or(|b| b == value), "conflicting element {item}");
                            if let Some(chain) = value.strip_prefix("goto ") {
                                assert!(self.chains.contains_key(chain), "{chain} is missing");
                            }
                        }
                    }
                    ["delete", "element", _, _, map, ..] => {
                        for key in inner().unwrap().split(", ") {
                            assert!(self.elements.remove(&((*map).into(), key.into())).is_some(), "no element {key}");
                        }
                    }
                    ["add", "chain", _, _, chain] => drop(self.chains.entry((*chain).into()).or_default()),
                    ["add", "rule", _, _, chain, rest @ ..] => self.chains.get_mut(*chain).unwrap().push(rest.join(" ")),
                    ["flush", "chain", _, _, chain] => self.chains.get_mut(*chain).unwrap().clear(),
                    ["delete", "chain", _, _, chain] => {
                        let used = format!("goto {chain}");
                        assert!(self.chains.remove(*chain).is_some_and(|rules| rules.is_empty()));
                        assert!(!self.elements.values().any(|v| *v == used), "{chain} is in use");
                        assert!(!self.chains.values().flatten().any(|r| r.contains(&used)), "{chain} is in use");
                    }
                    ["add", "set", _, _, set, ..] if line.contains("dynamic") => drop(self.sets.insert((*set).into())),
                    ["delete", "set", _, _, set] => assert!(self.sets.remove(*set)),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn what_changes_nothing_writes_nothing() {
        let mut table = table();
        assert!(table.set(&owner(1), Some(&fragment(1, &[2, 3], None))));
        table.full();
        assert!(!table.set(&owner(1), Some(&fragment(1, &[2, 3], None))));
        assert_eq!(table.take_changes(), None);
        table.set(&owner(1), Some(&fragment(1, &[2], None)));
        table.set(&owner(1), Some(&fragment(1, &[2, 3], None)));
        assert!(!table.take_changes().unwrap_or_default().contains("element"), "there and back again");
    }

    #[test]
    fn an_endpoint_that_two_services_share_stays_until_both_are_gone() {
        let mut table = table();
        table.set(&owner(1), Some(&fragment(1, &[2], None)));
        table.set(&owner(2), Some(&fragment(2, &[2], None)));
        table.full();
        table.set(&owner(1), None);
        assert!(!table.take_changes().unwrap().contains("hairpin"));
        table.set(&owner(2), None);
        assert!(table.take_changes().unwrap().contains("delete element ip t hairpin { 10.244.0.2 . 10.244.0.2 }"));
    }

    proptest! {
        #[test]
        fn changes_lead_to_what_a_full_load_gives(
            steps in proptest::collection::vec((0..4u8, proptest::option::of(proptest::collection::btree_set(1..5u8, 0..4)), proptest::option::of(1..3u32), any::<bool>()), 1..30)
        ) {
            let mut table = table();
            let mut kernel = Kernel::default();
            kernel.run(&table.full());
            for (name, ips, affinity, load) in steps {
                let new = ips.map(|ips| fragment(name, &ips.into_iter().collect::<Vec<_>>(), affinity));
                table.set(&owner(name), new.as_ref());
                if load && let Some(text) = table.take_changes() {
                    kernel.run(&text);
                }
            }
            if let Some(text) = table.take_changes() {
                kernel.run(&text);
            }
            let mut fresh = Kernel::default();
            fresh.run(&table.full());
            // Chains of a count that nobody has any more stay; they cost nothing.
            kernel.chains.retain(|name, _| fresh.chains.contains_key(name) || !name.contains("to-"));
            prop_assert_eq!(kernel, fresh);
        }
    }
}
