//! containerd's own event stream: tells at once which container has ended (the "PLEG" that needs no polling).
//!
//! Owns the subscription on the CRI socket. CRI's `GetContainerEvents` would do the same but containerd 1.6 does not implement it,
//! so the few messages of `containerd.services.events.v1` and `containerd.events` that matter are declared here by hand.

use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use tonic::Request;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// `containerd.services.events.v1.SubscribeRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// `containerd.services.events.v1.Envelope`, without its timestamp.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `containerd.events.TaskExit`
#[derive(Clone, PartialEq, prost::Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(uint32, tag = "4")]
    exit_status: u32,
}

/// `containerd.events.TaskOOM`
#[derive(Clone, PartialEq, prost::Message)]
struct TaskOom {
    #[prost(string, tag = "1")]
    container_id: String,
}

/// What happened to a container or a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its main process has ended. The CRI state follows some milliseconds later.
    Exited {
        /// Container or sandbox id.
        id: String,
        /// Exit status.
        code: u32,
    },
    /// The kernel killed one of its processes for want of memory.
    OutOfMemory {
        /// Container id.
        id: String,
    },
}

/// What happens in the CRI's namespace, from the first poll on. Ends with the connection.
///
/// containerd answers with headers only when there is a first event, so nothing tells when the subscription stands.
pub fn subscribe(channel: Channel) -> impl Stream<Item = Result<Event, tonic::Status>> {
    stream::once(open(channel)).try_flatten().filter_map(|envelope| async move { envelope.map(decode).transpose() })
}

async fn open(channel: Channel) -> Result<tonic::Streaming<Envelope>, tonic::Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let filters = ["/tasks/exit", "/tasks/oom"].iter().map(|topic| format!("namespace==k8s.io,topic==\"{topic}\"")).collect();
    let codec: ProstCodec<SubscribeRequest, Envelope> = ProstCodec::default();
    let path = PathAndQuery::from_static("/containerd.services.events.v1.Events/Subscribe");
    Ok(grpc.server_streaming(Request::new(SubscribeRequest { filters }), path, codec).await?.into_inner())
}

/// The event in an envelope, unless it is one of an exec process or of no interest.
fn decode(envelope: Envelope) -> Option<Event> {
    let payload = envelope.event?.value;
    match envelope.topic.as_str() {
        "/tasks/exit" => {
            let exit: TaskExit = prost::Message::decode(payload.as_slice()).ok()?;
            // An exec process has an id of its own.
            (exit.id == exit.container_id).then_some(Event::Exited { id: exit.container_id, code: exit.exit_status })
        }
        "/tasks/oom" => {
            let oom: TaskOom = prost::Message::decode(payload.as_slice()).ok()?;
            Some(Event::OutOfMemory { id: oom.container_id })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn exit(container: &str, id: &str) -> Envelope {
        let value = TaskExit { container_id: container.into(), id: id.into(), pid: 1, exit_status: 3 }.encode_to_vec();
        Envelope { namespace: "k8s.io".into(), topic: "/tasks/exit".into(), event: Some(Any { type_url: String::new(), value }) }
    }

    #[test]
    fn the_exit_of_an_exec_process_is_no_exit_of_the_container() {
        assert_eq!(decode(exit("c", "c")), Some(Event::Exited { id: "c".into(), code: 3 }));
        assert_eq!(decode(exit("c", "exec-1")), None);
    }
}
