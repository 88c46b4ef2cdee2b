//! Keeps the Endpoints of every Service with a selector, for those who do not read EndpointSlices (`pkg/controller/endpoint`).
//!
//! Owns the Endpoints object named like such a Service. Must never delete Endpoints that others made while no Service of that name
//! goes: they are the user's.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use parking_lot::Mutex;

use super::endpointslice::endpoint::{self, HEADLESS, TRIGGER_TIME};
use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 5;
/// More addresses are left out.
const MAX_CAPACITY: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpoint-controller";
/// Endpoints that serve as locks of old leader elections are nobody's leftovers.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        services: ctx.informers.get(),
        pods: ctx.informers.get(),
        endpoints: ctx.informers.get(),
        times: Mutex::default(),
        bereaved: Mutex::default(),
    });
    let all = controller.services.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|s| Key::of(&**s)).collect());
    let (state, into) = (controller.clone(), queue.clone());
    ctx.on(&controller.services, move |change| {
        let key = Key::of(&**change.object());
        if matches!(change, Change::Deleted(_)) {
            state.bereaved.lock().insert(key.clone());
        }
        into.add(key);
    });
    let (services, into) = (controller.services.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| endpoint::services_concerned(&services, &change).into_iter().for_each(|key| into.add(key)));
    // Endpoints somebody else removes.
    let into = queue.clone();
    ctx.on(&controller.endpoints, move |change| {
        if let Change::Deleted(gone) = change {
            into.add(Key::of(&*gone));
        }
    });
    // Leftovers of Services deleted while nobody looked.
    let (start, into) = (controller.clone(), queue.clone());
    ctx.tasks.spawn("endpoints-controller/start", async move {
        futures::future::join_all([synced(&start.services), synced(&start.endpoints)]).await;
        start.endpoints.list().iter().filter(|e| is_ours(e)).for_each(|e| into.add(Key::of(&**e)));
    });
    let ready = vec![synced(&controller.services), synced(&controller.pods), synced(&controller.endpoints)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    times: Mutex<endpoint::TriggerTimes>,
    /// Services that have gone and whose Endpoints, whoever made them, go with them.
    bereaved: Mutex<HashSet<Key>>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let current = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.times.lock().forget(key);
            let bereaved = self.bereaved.lock().contains(key);
            if current.is_some_and(|c| bereaved && !is_lock(&c) || is_ours(&c)) {
                found(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            self.bereaved.lock().remove(key);
            return Ok(());
        };
        self.bereaved.lock().remove(key);
        let Some(selector) = endpoint::selector(&service) else { return Ok(()) };
        let selected: Vec<_> = self.pods.list_namespaced(&key.namespace).into_iter().filter(|p| selector.matches(&p.metadata.labels)).collect();
        let trigger = self.times.lock().compute(&service, &selected.iter().map(|p| &**p).collect::<Vec<_>>());
        let mut subsets = subsets(&service, &selected);
        let truncated = truncate(&mut subsets);
        let labels = labels(&service);
        if let Some(current) = &current
            && current.subsets.clone().unwrap_or_default() == subsets
            && current.metadata.labels.as_ref() == Some(&labels)
            && current.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(OVER_CAPACITY)) == truncated
        {
            return Ok(());
        }
        let mut metadata = current.as_ref().map_or_else(
            || ObjectMeta { name: service.metadata.name.clone(), namespace: service.metadata.namespace.clone(), ..ObjectMeta::default() },
            |c| c.metadata.clone(),
        );
        metadata.labels = Some(labels);
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.remove(TRIGGER_TIME);
        annotations.remove(OVER_CAPACITY);
        if let Some(time) = trigger.and_then(|t| serde_json::to_value(t).ok()).as_ref().and_then(serde_json::Value::as_str) {
            annotations.insert(TRIGGER_TIME.into(), time.to_owned());
        }
        if truncated {
            annotations.insert(OVER_CAPACITY.into(), "truncated".into());
        }
        let wanted = Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) };
        let result = match &current {
            None => api.create(&PostParams::default(), &wanted).await,
            Some(_) => api.replace(&key.name, &PostParams::default(), &wanted).await,
        };
        match result.map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                if !error.is_conflict() && !error.is_already_exists() {
                    let (reason, verb) = if current.is_none() { ("FailedToCreateEndpoint", "create") } else { ("FailedToUpdateEndpoint", "update") };
                    self.recorder.event(&*service, Kind::Warning, reason, format!("Failed to {verb} endpoint for service {key}: {error}"));
                }
                Err(error)
            }
        }
    }
}

/// Whether this controller made it and keeps it.
fn is_ours(endpoints: &Endpoints) -> bool {
    !is_lock(endpoints) && endpoints.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).map(String::as_str) == Some(CONTROLLER)
}

fn is_lock(endpoints: &Endpoints) -> bool {
    endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER))
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if endpoint::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    labels
}

/// The address of a pod in the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let family = endpoint::families(service).into_iter().next()?;
    let ip = endpoint::addresses(pod).into_iter().find(|a| endpoint::family(a) == Some(&family))?;
    Some(EndpointAddress {
        ip: ip.to_owned(),
        hostname: endpoint::hostname(pod, service),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|n| !n.is_empty()),
        target_ref: Some(endpoint::target(pod)),
    })
}

/// Name, number, protocol, application protocol.
type PortTuple = (String, i32, String, Option<String>);
/// Addresses in order.
type Sorted = BTreeMap<String, EndpointAddress>;

/// The subsets of a Service in canonical form: pods with the same ports together, all sorted (`RepackSubsets`).
fn subsets(service: &Service, selected: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publish = endpoint::publishes_not_ready(service);
    // Upstream repacks port by port: an address appears once for each, and ports with equal addresses are merged again.
    let mut by_port: BTreeMap<Option<PortTuple>, (Sorted, Sorted)> = BTreeMap::new();
    let headless_without_ports = endpoint::is_headless(service) && service.spec.as_ref().and_then(|s| s.ports.as_ref()).is_none_or(Vec::is_empty);
    for pod in selected.iter().filter(|p| endpoint::is_endpoint(p, publish)) {
        let Some(address) = address(service, pod) else { continue };
        let ready = publish || pods::is_ready(pod);
        let ports = endpoint::ports(service, pod);
        let mut keys: Vec<Option<PortTuple>> = ports
            .into_iter()
            .map(|p| Some((p.name.unwrap_or_default(), p.port.unwrap_or_default(), p.protocol.unwrap_or_default(), p.app_protocol)))
            .collect();
        if headless_without_ports {
            keys.push(None);
        }
        for key in keys {
            let (yes, no) = by_port.entry(key).or_default();
            if ready { yes } else { no }.insert(format!("{} {}", address.ip, pods::uid(pod)), address.clone());
        }
    }
    type Addresses = (Vec<String>, Vec<String>);
    type Group = (BTreeSet<PortTuple>, Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut merged: BTreeMap<Addresses, Group> = BTreeMap::new();
    for (port, (yes, no)) in by_port {
        let key = (yes.keys().cloned().collect(), no.keys().cloned().collect());
        let group = merged.entry(key).or_insert_with(|| (BTreeSet::new(), yes.into_values().collect(), no.into_values().collect()));
        group.0.extend(port);
    }
    let some = |list: Vec<EndpointAddress>| (!list.is_empty()).then_some(list);
    let port = |(name, port, protocol, app_protocol): PortTuple| EndpointPort {
        name: (!name.is_empty()).then_some(name),
        port,
        protocol: Some(protocol),
        app_protocol,
    };
    let subset = |(ports, yes, no): Group| {
        let ports: Vec<_> = ports.into_iter().map(port).collect();
        EndpointSubset { addresses: some(yes), not_ready_addresses: some(no), ports: (!ports.is_empty()).then_some(ports) }
    };
    merged.into_values().map(subset).collect()
}

/// Keeps the number of addresses within bounds, unready ones leaving first. Returns whether any had to.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let len = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize = subsets.iter().map(|s| len(&s.addresses) + len(&s.not_ready_addresses)).sum();
    let mut excess = total.saturating_sub(MAX_CAPACITY);
    let truncated = excess > 0;
    let cut = |list: &mut Option<Vec<EndpointAddress>>, excess: &mut usize| {
        if let Some(addresses) = list {
            let gone = addresses.len().min(*excess);
            addresses.truncate(addresses.len() - gone);
            *excess -= gone;
        }
        if list.as_ref().is_some_and(Vec::is_empty) {
            *list = None;
        }
    };
    for subset in subsets.iter_mut() {
        cut(&mut subset.not_ready_addresses, &mut excess);
    }
    for subset in subsets.iter_mut() {
        cut(&mut subset.addresses, &mut excess);
    }
    truncated
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, ContainerPort, PodCondition, PodSpec, PodStatus, ServicePort, ServiceSpec};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    use super::*;

    fn service(ports: &[(&str, IntOrString)]) -> Service {
        let port = |(name, target): &(&str, IntOrString)| ServicePort {
            name: Some((*name).into()),
            port: 80,
            target_port: Some(target.clone()),
            ..ServicePort::default()
        };
        let mut service = Service::default();
        service.metadata.name = Some("web".into());
        service.spec = Some(ServiceSpec {
            selector: Some([("app".to_owned(), "web".to_owned())].into()),
            ports: Some(ports.iter().map(port).collect()),
            ..ServiceSpec::default()
        });
        service
    }

    fn pod(n: usize, ready: bool, named: i32) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("p{n}"));
        let port = ContainerPort { name: Some("http".into()), container_port: named, ..ContainerPort::default() };
        let container = Container { ports: Some(vec![port]), ..Container::default() };
        pod.spec = Some(PodSpec { containers: vec![container], node_name: Some("n1".into()), ..PodSpec::default() });
        let condition = PodCondition { type_: "Ready".into(), status: if ready { "True" } else { "False" }.into(), ..PodCondition::default() };
        pod.status =
            Some(PodStatus { pod_ip: Some(format!("10.0.{}.{}", n / 200, n % 200 + 1)), conditions: Some(vec![condition]), ..PodStatus::default() });
        Arc::new(pod)
    }

    #[test]
    fn pods_with_the_same_ports_share_a_subset() {
        let service = service(&[("a", IntOrString::Int(8080)), ("b", IntOrString::String("http".into()))]);
        let found = subsets(&service, &[pod(1, true, 9000), pod(2, false, 9000), pod(3, true, 9001)]);
        // Port a is served by all; port b by two sets of pods on different numbers.
        let shape = |s: &EndpointSubset| {
            let len = |l: &Option<Vec<EndpointAddress>>| l.as_ref().map_or(0, Vec::len);
            let ports: Vec<_> = s.ports.iter().flatten().map(|p| p.port).collect();
            (len(&s.addresses), len(&s.not_ready_addresses), ports)
        };
        let mut shapes: Vec<_> = found.iter().map(shape).collect();
        shapes.sort();
        assert_eq!(shapes, [(1, 0, vec![9001]), (1, 1, vec![9000]), (2, 1, vec![8080])]);
    }

    #[test]
    fn terminating_and_finished_pods_are_no_endpoints_unless_unready_ones_are_published() {
        let mut service = service(&[("a", IntOrString::Int(80))]);
        let mut leaving = (*pod(1, true, 1)).clone();
        leaving.metadata.deletion_timestamp = Some(crate::controllers::now());
        let mut done = (*pod(2, false, 1)).clone();
        done.status.as_mut().unwrap().phase = Some("Succeeded".into());
        let all = [Arc::new(leaving), Arc::new(done), pod(3, false, 1)];
        assert_eq!(subsets(&service, &all)[0].not_ready_addresses.as_ref().unwrap().len(), 1);
        service.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        assert_eq!(subsets(&service, &all)[0].addresses.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn at_most_a_thousand_addresses_are_kept_and_ready_ones_stay() {
        let service = service(&[("a", IntOrString::Int(80))]);
        let pods: Vec<_> = (0..1200).map(|n| pod(n, n % 2 == 0, 1)).collect();
        let mut found = subsets(&service, &pods);
        assert!(truncate(&mut found));
        assert_eq!(found[0].addresses.as_ref().unwrap().len(), 600);
        assert_eq!(found[0].not_ready_addresses.as_ref().unwrap().len(), 400);
        assert!(!truncate(&mut found));
    }
}
