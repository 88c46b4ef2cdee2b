//! Keeps the EndpointSlices of every Service with a selector (`pkg/controller/endpointslice`).
//!
//! Owns slices labelled as managed by it. Must never touch those of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use super::queue::{Key, Queue};
use super::{Context, Error, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

pub mod endpoint;
pub mod mirroring;
mod reconcile;
mod written;

use reconcile::{CONTROLLER, Common, MANAGED_BY, Plan, PortKey, SERVICE_NAME, Wanted};
use written::Written;

const WORKERS: usize = 5;

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        services: ctx.informers.get(),
        pods: ctx.informers.get(),
        nodes: ctx.informers.get(),
        slices: ctx.informers.get(),
        written: Written::default(),
        times: Mutex::default(),
    });
    ctx.enqueue_all(&controller.services, &queue);
    let (services, into) = (controller.services.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| endpoint::services_concerned(&services, &change).into_iter().for_each(|key| into.add(key)));
    let (written, into) = (controller.written.clone(), queue.clone());
    ctx.on(&controller.slices, move |change| {
        if let Some(service) = service_of(&change.object().metadata, CONTROLLER)
            && written.observe(&service, &change)
        {
            into.add(service);
        }
    });
    // A node that appears, or moves to another zone, changes the endpoints on it.
    let (services, pods, into) = (controller.services.clone(), controller.pods.clone(), queue.clone());
    ctx.on(&controller.nodes, move |change| {
        let zone = |n: &Node| n.metadata.labels.as_ref().and_then(|l| l.get("topology.kubernetes.io/zone").cloned());
        if matches!(&change, Change::Updated { old, new } if zone(old) == zone(new)) || matches!(change, Change::Deleted(_)) {
            return;
        }
        let name = change.object().metadata.name.as_deref().unwrap_or_default();
        for pod in pods.list().into_iter().filter(|p| pods::node_name(p) == name) {
            endpoint::services_concerned(&services, &Change::Added(pod)).into_iter().for_each(|key| into.add(key));
        }
    });
    let ready = vec![synced(&controller.services), synced(&controller.pods), synced(&controller.nodes), synced(&controller.slices)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// The Service whose slice this is, if it is this controller's.
fn service_of(meta: &ObjectMeta, controller: &str) -> Option<Key> {
    let labels = meta.labels.as_ref()?;
    (labels.get(MANAGED_BY).map(String::as_str) == Some(controller))
        .then(|| labels.get(SERVICE_NAME).map(|name| Key::new(meta.namespace.clone().unwrap_or_default(), name.clone())))
        .flatten()
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    written: Written,
    times: Mutex<endpoint::TriggerTimes>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            // The slices go with the Service through their owner references.
            self.times.lock().forget(key);
            self.written.forget(key);
            return Ok(());
        };
        let Some(selector) = endpoint::selector(&service) else { return Ok(()) };
        if !self.written.is_fresh(key, &self.slices) {
            return Ok(());
        }
        let selected: Vec<_> = self.pods.list_namespaced(&key.namespace).into_iter().filter(|p| selector.matches(&p.metadata.labels)).collect();
        let existing: Vec<_> = self
            .slices
            .list_namespaced(&key.namespace)
            .into_iter()
            .filter(|s| s.metadata.deletion_timestamp.is_none() && service_of(&s.metadata, CONTROLLER).as_ref() == Some(key))
            .collect();
        let trigger = self.times.lock().compute(&service, &selected.iter().map(|p| &**p).collect::<Vec<_>>());
        let families = endpoint::families(&service);
        let mut plan = Plan { delete: existing.iter().filter(|s| !families.contains(&s.address_type)).cloned().collect(), ..Plan::default() };
        let mut missing_nodes = Vec::new();
        let common = Common::of(&service);
        for family in &families {
            let of_family: Vec<_> = existing.iter().filter(|s| s.address_type == *family).cloned().collect();
            let wanted = self.wanted(&service, family, &selected, &mut missing_nodes);
            let part = reconcile::plan(&common, family, &of_family, wanted);
            plan.create.extend(part.create);
            plan.update.extend(part.update);
            plan.delete.extend(part.delete);
        }
        if let Some(trigger) = trigger
            && let Ok(text) = serde_json::to_value(&trigger)
        {
            for slice in plan.create.iter_mut().chain(&mut plan.update) {
                let text = text.as_str().unwrap_or_default().to_owned();
                slice.metadata.annotations.get_or_insert_default().insert(endpoint::TRIGGER_TIME.into(), text);
            }
        }
        if service.metadata.deletion_timestamp.is_some() {
            // A Service on its way out gets nothing new.
            plan.create.clear();
        }
        let result = self.written.carry_out(&self.client, key, plan).await;
        if let Err(error) = &result
            && !error.is_conflict()
        {
            let text = format!("Error updating Endpoint Slices for Service {key}: {error}");
            self.recorder.event(&*service, Kind::Warning, "FailedToUpdateEndpointSlices", text);
        }
        result?;
        // The pod's node will show up, or the pod will go; either brings the Service back, the retry is a net.
        match missing_nodes.first() {
            Some(pod) => Err(Error::Other(format!("skipping Pod {pod} for Service {key}: Node not found"))),
            None => Ok(()),
        }
    }

    fn wanted(&self, service: &Service, family: &str, selected: &[Arc<Pod>], missing_nodes: &mut Vec<String>) -> BTreeMap<PortKey, Wanted> {
        let mut wanted: BTreeMap<PortKey, Wanted> = BTreeMap::new();
        for pod in selected.iter().filter(|p| endpoint::is_endpoint(p, true)) {
            let node_name = pods::node_name(pod);
            let node = self.nodes.get("", node_name);
            if node.is_none() && !node_name.is_empty() && !endpoint::publishes_not_ready(service) {
                missing_nodes.push(pods::name(pod).to_owned());
                continue;
            }
            if let Some(endpoint) = endpoint::endpoint(pod, node.as_deref(), service, family) {
                let ports = endpoint::ports(service, pod);
                let group = wanted.entry(reconcile::port_key(&ports)).or_insert_with(|| Wanted { ports, endpoints: Vec::new() });
                group.endpoints.push(endpoint);
            }
        }
        wanted
    }
}
