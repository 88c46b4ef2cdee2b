//! From a question about our zone to the records of the answer. Pure.

use std::net::IpAddr;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::index::{self, Found, Index};

/// What is sent back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authorities: Vec<Record>,
    /// Additional section.
    pub additionals: Vec<Record>,
    /// Whether we are the authority.
    pub authoritative: bool,
}

impl Answer {
    /// An answer without records.
    pub fn empty(code: ResponseCode) -> Self {
        Answer { code, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new(), authoritative: false }
    }
}

/// What is to be done with a question.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Answer it.
    Answer(Answer),
    /// An alias out of our zone: answer with it and with what its target has.
    Follow(Answer, Name),
    /// Not ours: ask upstream.
    Forward,
}

/// The zone we answer for.
#[derive(Clone, Debug)]
pub struct Zone {
    name: Name,
    ttl: u32,
}

impl Zone {
    /// `domain` is such as `cluster.local`; `ttl` in seconds.
    ///
    /// # Errors
    /// `domain` is no domain name.
    pub fn new(domain: &str, ttl: u32) -> anyhow::Result<Self> {
        let mut name = Name::from_ascii(domain.trim_end_matches('.'))?.to_lowercase();
        name.set_fqdn(true);
        Ok(Zone { name, ttl })
    }

    /// A full name from one relative to the zone.
    fn full(&self, relative: &str) -> Option<Name> {
        Name::from_ascii(format!("{relative}.{}", self.name)).ok()
    }

    fn record(&self, name: &Name, data: RData) -> Record {
        Record::from_rdata(name.clone(), self.ttl, data)
    }

    fn address(&self, name: &Name, ip: IpAddr) -> Record {
        match ip {
            IpAddr::V4(ip) => self.record(name, RData::A(A(ip))),
            IpAddr::V6(ip) => self.record(name, RData::AAAA(AAAA(ip))),
        }
    }

    fn soa(&self) -> Option<Record> {
        let (server, admin) = (self.full("ns.dns")?, self.full("hostmaster")?);
        // The serial number means nothing here: nobody transfers this zone.
        Some(self.record(&self.name, RData::SOA(SOA::new(server, admin, 1, 7200, 1800, 86400, self.ttl))))
    }

    /// Works a question out; `name` as it was asked, so that its case is given back.
    pub fn resolve(&self, index: &Index, name: &Name, kind: RecordType) -> Outcome {
        let lower = name.to_lowercase();
        if let Some(ip) = reversed(&lower) {
            return self.resolve_reverse(index, name, kind, ip);
        }
        if !self.name.zone_of(&lower) {
            return Outcome::Forward;
        }
        let keep = usize::from(lower.num_labels() - self.name.num_labels());
        let labels: Option<Vec<&str>> = lower.iter().take(keep).map(|l| std::str::from_utf8(l).ok()).collect();
        let found = labels.map_or(Found::Nothing, |labels| index.lookup(&labels));
        let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
        match found {
            Found::Nothing => answer.code = ResponseCode::NXDomain,
            Found::Records(records) => {
                for record in records {
                    if let Some(target) = self.add(&mut answer, name, kind, record) {
                        return self.alias(index, answer, target, kind);
                    }
                }
                if keep == 0 {
                    self.add_apex(&mut answer, kind);
                }
            }
        }
        if answer.answers.is_empty() {
            answer.authorities.extend(self.soa());
        }
        Outcome::Answer(answer)
    }

    fn add_apex(&self, answer: &mut Answer, kind: RecordType) {
        match kind {
            RecordType::SOA => answer.answers.extend(self.soa()),
            RecordType::NS => answer.answers.extend(self.full("ns.dns").map(|n| self.record(&self.name, RData::NS(NS(n))))),
            _ => {}
        }
    }

    /// Adds a record if it is of the wanted type; an alias' target is returned instead.
    fn add(&self, answer: &mut Answer, name: &Name, kind: RecordType, record: index::Record) -> Option<Name> {
        let wants = |k: RecordType| kind == k || kind == RecordType::ANY;
        match record {
            index::Record::Address(ip) if wants(if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA }) => {
                answer.answers.push(self.address(name, ip));
            }
            index::Record::Text(text) if wants(RecordType::TXT) => answer.answers.push(self.record(name, RData::TXT(TXT::new(vec![text])))),
            index::Record::Server { port, target, addresses } if wants(RecordType::SRV) => {
                let target = self.full(&target)?;
                answer.answers.push(self.record(name, RData::SRV(SRV::new(0, 100, port, target.clone()))));
                let more = addresses.into_iter().map(|ip| self.address(&target, ip));
                let new: Vec<Record> = more.filter(|r| !answer.additionals.contains(r)).collect();
                answer.additionals.extend(new);
            }
            index::Record::Alias(target) => {
                let mut target = Name::from_ascii(target.trim_end_matches('.')).ok()?;
                target.set_fqdn(true);
                answer.answers.push(self.record(name, RData::CNAME(CNAME(target.clone()))));
                return Some(target);
            }
            _ => {}
        }
        None
    }

    fn alias(&self, index: &Index, mut answer: Answer, target: Name, kind: RecordType) -> Outcome {
        if kind == RecordType::CNAME || kind == RecordType::ANY {
            return Outcome::Answer(answer);
        }
        // One step within the zone is enough: Services that alias each other in a circle must not keep us busy.
        if !self.name.zone_of(&target.to_lowercase()) {
            return Outcome::Follow(answer, target);
        }
        let lower = target.to_lowercase();
        let keep = usize::from(lower.num_labels() - self.name.num_labels());
        let labels: Option<Vec<&str>> = lower.iter().take(keep).map(|l| std::str::from_utf8(l).ok()).collect();
        if let Some(Found::Records(records)) = labels.map(|labels| index.lookup(&labels)) {
            for record in records.into_iter().filter(|r| !matches!(r, index::Record::Alias(_))) {
                self.add(&mut answer, &target, kind, record);
            }
        }
        Outcome::Answer(answer)
    }

    fn resolve_reverse(&self, index: &Index, name: &Name, kind: RecordType, ip: IpAddr) -> Outcome {
        let names = index.reverse(ip);
        if names.is_empty() {
            return Outcome::Forward;
        }
        let mut answer = Answer { authoritative: true, ..Answer::empty(ResponseCode::NoError) };
        if matches!(kind, RecordType::PTR | RecordType::ANY) {
            answer.answers = names.iter().filter_map(|n| self.full(n)).map(|n| self.record(name, RData::PTR(PTR(n)))).collect();
        }
        Outcome::Answer(answer)
    }
}

/// The address of a name below `in-addr.arpa` or `ip6.arpa`.
fn reversed(name: &Name) -> Option<IpAddr> {
    let text = name.to_ascii();
    let text = text.trim_end_matches('.');
    if let Some(digits) = text.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = digits.split('.').collect();
        parts.reverse();
        return parts.join(".").parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let digits = text.strip_suffix(".ip6.arpa")?;
    let nibbles: Vec<&str> = digits.split('.').rev().collect();
    let valid = nibbles.len() == 32 && nibbles.iter().all(|n| n.len() == 1);
    valid.then(|| u128::from_str_radix(&nibbles.concat(), 16).ok()).flatten().map(|bits| IpAddr::V6(bits.into()))
}

#[cfg(test)]
mod tests {
    use super::super::index::tests::index;
    use super::*;

    fn resolve(name: &str, kind: RecordType) -> Outcome {
        Zone::new("cluster.local", 5).unwrap().resolve(&index(), &Name::from_ascii(name).unwrap(), kind)
    }

    fn answer(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>) {
        match resolve(name, kind) {
            Outcome::Answer(answer) => {
                let negative = answer.answers.is_empty() && answer.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
                assert!(answer.authoritative && (negative || !answer.answers.is_empty() || name.ends_with("arpa.")), "{name}: {answer:?}");
                (answer.code, answer.answers.iter().map(|r| r.data.to_string()).collect())
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn questions_are_answered_as_the_specification_says() {
        use RecordType as T;
        for (name, kind, code, expected) in [
            ("plain.default.svc.cluster.local.", T::A, ResponseCode::NoError, vec!["10.96.0.5"]),
            ("PLAIN.default.SVC.cluster.local.", T::A, ResponseCode::NoError, vec!["10.96.0.5"]),
            ("plain.default.svc.cluster.local.", T::AAAA, ResponseCode::NoError, vec!["fd00::5"]),
            ("plain.default.svc.cluster.local.", T::MX, ResponseCode::NoError, vec![]),
            ("db.default.svc.cluster.local.", T::A, ResponseCode::NoError, vec!["10.244.0.2", "10.244.0.3"]),
            ("db.default.svc.cluster.local.", T::AAAA, ResponseCode::NoError, vec![]),
            ("hollow.default.svc.cluster.local.", T::A, ResponseCode::NoError, vec![]),
            ("absent.default.svc.cluster.local.", T::A, ResponseCode::NXDomain, vec![]),
            ("_web._tcp.plain.default.svc.cluster.local.", T::SRV, ResponseCode::NoError, vec!["0 100 80 plain.default.svc.cluster.local."]),
            ("dns-version.cluster.local.", T::TXT, ResponseCode::NoError, vec!["1.1.0"]),
            ("ext.default.svc.cluster.local.", T::CNAME, ResponseCode::NoError, vec!["example.org."]),
            ("5.0.96.10.in-addr.arpa.", T::PTR, ResponseCode::NoError, vec!["plain.default.svc.cluster.local."]),
            ("2.0.244.10.in-addr.arpa.", T::PTR, ResponseCode::NoError, vec!["db-0.db.default.svc.cluster.local."]),
            ("cluster.local.", T::NS, ResponseCode::NoError, vec!["ns.dns.cluster.local."]),
            ("1-2-3-4.default.pod.cluster.local.", T::A, ResponseCode::NoError, vec!["1.2.3.4"]),
            ("x.cluster.local.", T::A, ResponseCode::NXDomain, vec![]),
        ] {
            assert_eq!(answer(name, kind), (code, expected.into_iter().map(str::to_owned).collect()), "{name} {kind}");
        }
    }

    #[test]
    fn six_byte_addresses_lead_back_too() {
        let name = format!("5.{}0.0.d.f.ip6.arpa.", "0.".repeat(27));
        assert_eq!(answer(&name, RecordType::PTR).1, ["plain.default.svc.cluster.local."]);
    }

    #[test]
    fn names_that_are_not_ours_go_upstream() {
        for name in ["example.org.", "cluster.local.example.org.", "4.3.2.1.in-addr.arpa.", "local."] {
            assert!(matches!(resolve(name, RecordType::A), Outcome::Forward), "{name}");
        }
    }

    #[test]
    fn an_external_name_is_followed_out_of_the_zone() {
        let Outcome::Follow(answer, target) = resolve("ext.default.svc.cluster.local.", RecordType::A) else { panic!("not followed") };
        assert_eq!((answer.answers.len(), target.to_ascii().as_str()), (1, "example.org."));
    }

    #[test]
    fn server_records_bring_the_addresses_along() {
        let Outcome::Answer(answer) = resolve("_web._tcp.db.default.svc.cluster.local.", RecordType::SRV) else { panic!("not answered") };
        assert_eq!((answer.answers.len(), answer.additionals.len()), (2, 2));
    }
}
