//! Forgets UDP flows that still go to a backend that is gone, over netlink, so that no `conntrack` tool is needed
//! (`pkg/proxy/conntrack/cleanup.go`; wire format: `linux/netfilter/nfnetlink_conntrack.h`).
//!
//! TCP needs none of this: its connections end by themselves, and new ones look the table up again.

use std::io::Read;
use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const AF_NETLINK: i32 = 16;
const NETLINK_NETFILTER: i32 = 12;
const AF_INET: u8 = 2;
const IPPROTO_UDP: u8 = 17;
/// `NFNL_SUBSYS_CTNETLINK << 8`
const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const HEADER: usize = 20;

/// A UDP flow: where it was sent to, and who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination as the client sees it.
    pub to: (Ipv4Addr, u16),
    /// The backend; the destination itself when nothing was rewritten.
    pub backend: (Ipv4Addr, u16),
}

/// Deletes the UDP flows that `stale` names; returns how many. Blocks for a moment; call it off the async threads.
///
/// # Errors
/// The kernel refuses (no permission, no conntrack).
pub fn forget(stale: impl Fn(&Flow) -> bool) -> std::io::Result<usize> {
    let mut socket = Socket::new(Domain::from(AF_NETLINK), Type::RAW, Some(Protocol::from(NETLINK_NETFILTER)))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(&message(GET, REQUEST | DUMP, &[]))?;
    let mut found = Vec::new();
    let mut buffer = vec![0u8; 64 * 1024];
    'dump: loop {
        let read = socket.read(&mut buffer)?;
        for (kind, body) in messages(&buffer[..read]) {
            match kind {
                NLMSG_DONE => break 'dump,
                NLMSG_ERROR => return Err(error(body)),
                _ => {
                    if let Some((flow, tuple)) = udp_flow(body.get(4..).unwrap_or_default())
                        && stale(&flow)
                    {
                        found.push(tuple.to_vec());
                    }
                }
            }
        }
    }
    for tuple in &found {
        socket.send(&message(DELETE, REQUEST | ACK, tuple))?;
        let read = socket.read(&mut buffer)?;
        for (kind, body) in messages(&buffer[..read]) {
            // A flow that has ended meanwhile (ENOENT) is as good as deleted.
            if kind == NLMSG_ERROR && !matches!(error(body).raw_os_error(), Some(0 | 2)) {
                return Err(error(body));
            }
        }
    }
    Ok(found.len())
}

fn message(kind: u16, flags: u16, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + attributes.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(HEADER + attributes.len());
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend([0; 8]);
    out.extend([AF_INET, 0, 0, 0]);
    out.extend(attributes);
    out
}

/// The messages in a datagram: type and what follows the netlink header.
fn messages(mut rest: &[u8]) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    while rest.len() >= 16 {
        let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        if length < 16 || length > rest.len() {
            break;
        }
        out.push((u16::from_ne_bytes([rest[4], rest[5]]), &rest[16..length]));
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
    out
}

fn error(body: &[u8]) -> std::io::Error {
    let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    std::io::Error::from_raw_os_error(-code)
}

/// The attributes in a stretch of bytes: type, value, and the attribute as a whole.
fn attributes(mut rest: &[u8]) -> Vec<(u16, &[u8], &[u8])> {
    let mut out = Vec::new();
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if length < 4 || length > rest.len() {
            break;
        }
        let padded = length.next_multiple_of(4).min(rest.len());
        // The top bits say "nested" and "network byte order".
        out.push((u16::from_ne_bytes([rest[2], rest[3]]) & 0x3fff, &rest[4..length], &rest[..padded]));
        rest = &rest[padded..];
    }
    out
}

struct Tuple {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    protocol: u8,
}

fn tuple(bytes: &[u8]) -> Option<Tuple> {
    let address = |v: &[u8]| <[u8; 4]>::try_from(v).ok().map(Ipv4Addr::from);
    let port = |v: &[u8]| <[u8; 2]>::try_from(v).ok().map(u16::from_be_bytes);
    let (mut source, mut destination, mut ports, mut protocol) = (None, None, (None, None), None);
    for (kind, value, _) in attributes(bytes) {
        for (inner, value, _) in attributes(value) {
            match (kind, inner) {
                (1, 1) => source = address(value),
                (1, 2) => destination = address(value),
                (2, 1) => protocol = value.first().copied(),
                (2, 2) => ports.0 = port(value),
                (2, 3) => ports.1 = port(value),
                _ => {}
            }
        }
    }
    Some(Tuple { source: (source?, ports.0?), destination: (destination?, ports.1?), protocol: protocol? })
}

/// A UDP flow of an entry, and the attribute that identifies it to the kernel.
fn udp_flow(bytes: &[u8]) -> Option<(Flow, &[u8])> {
    let all = attributes(bytes);
    let find = |wanted: u16| all.iter().find(|(kind, ..)| *kind == wanted);
    let (_, original, whole) = find(TUPLE_ORIG)?;
    let (original, reply) = (tuple(original)?, tuple(find(TUPLE_REPLY)?.1)?);
    (original.protocol == IPPROTO_UDP).then_some((Flow { to: original.destination, backend: reply.source }, *whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn tuple_bytes(source: [u8; 4], sport: u16, destination: [u8; 4], dport: u16) -> Vec<u8> {
        let ip = [attribute(1, &source), attribute(2, &destination)].concat();
        let proto = [attribute(1, &[IPPROTO_UDP]), attribute(2, &sport.to_be_bytes()), attribute(3, &dport.to_be_bytes())].concat();
        [attribute(0x8001, &ip), attribute(0x8002, &proto)].concat()
    }

    #[test]
    fn a_flow_is_read_from_an_entry() {
        let original = attribute(0x8001, &tuple_bytes([10, 0, 0, 1], 4000, [10, 96, 0, 10], 53));
        let reply = attribute(0x8002, &tuple_bytes([10, 0, 0, 9], 5353, [10, 0, 0, 1], 4000));
        let entry = [original.clone(), reply].concat();
        let (flow, id) = udp_flow(&entry).unwrap();
        assert_eq!(flow, Flow { to: ([10, 96, 0, 10].into(), 53), backend: ([10, 0, 0, 9].into(), 5353) });
        assert_eq!(id, original);
    }

    #[test]
    fn cut_off_bytes_are_no_flow_and_no_panic() {
        let whole = attribute(0x8001, &tuple_bytes([1, 2, 3, 4], 1, [5, 6, 7, 8], 2));
        for length in 0..whole.len() {
            assert!(udp_flow(&whole[..length]).is_none());
        }
        assert!(messages(&[1, 0, 0, 0, 9]).is_empty());
    }
}
