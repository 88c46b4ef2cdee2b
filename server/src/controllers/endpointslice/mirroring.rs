//! Mirrors Endpoints that users make for Services without a selector into EndpointSlices, which is what proxies read
//! (`pkg/controller/endpointslicemirroring`).
//!
//! Owns slices labelled as managed by it, and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};

use super::endpoint::TRIGGER_TIME;
use super::reconcile::{self, Common, MANAGED_BY, Plan, PortKey, SERVICE_NAME, Wanted};
use super::service_of;
use super::written::Written;
use crate::controllers::control::controller_ref;
use crate::controllers::queue::{Key, Queue};
use crate::controllers::{Context, Error, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 5;
/// This controller, as slices name it.
const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// More addresses of a subset are left out.
const MAX_PER_SUBSET: usize = 1000;
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Key> = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        services: ctx.informers.get(),
        endpoints: ctx.informers.get(),
        slices: ctx.informers.get(),
        written: Written::default(),
    });
    let all = controller.endpoints.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().filter(|e| is_mirrored(e)).map(|e| Key::of(&**e)).collect());
    let into = queue.clone();
    ctx.on(&controller.endpoints, move |change| {
        let before = matches!(&change, Change::Updated { old, .. } if is_mirrored(old));
        if before || is_mirrored(change.object()) {
            into.add(Key::of(&**change.object()));
        }
    });
    let into = queue.clone();
    ctx.on(&controller.services, move |change| {
        let concerned = match &change {
            Change::Updated { old, new } => has_selector(old) != has_selector(new),
            other => !has_selector(other.object()),
        };
        if concerned {
            into.add(Key::of(&**change.object()));
        }
    });
    let (written, into) = (controller.written.clone(), queue.clone());
    ctx.on(&controller.slices, move |change| {
        if let Some(service) = service_of(&change.object().metadata, CONTROLLER)
            && written.observe(&service, &change)
        {
            into.add(service);
        }
    });
    let ready = vec![synced(&controller.services), synced(&controller.endpoints), synced(&controller.slices)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn has_selector(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty())
}

/// Whether Endpoints are to be mirrored, if their Service has no selector.
fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP)).is_some_and(|v| v == "true");
    !skipped && !meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER))
}

struct Controller {
    client: kube::Client,
    recorder: Recorder,
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    written: Written,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        if !self.written.is_fresh(key, &self.slices) {
            return Ok(());
        }
        let mine = |s: &Arc<EndpointSlice>| s.metadata.deletion_timestamp.is_none() && service_of(&s.metadata, CONTROLLER).as_ref() == Some(key);
        let existing: Vec<_> = self.slices.list_namespaced(&key.namespace).into_iter().filter(mine).collect();
        let endpoints = self.endpoints.get(&key.namespace, &key.name).filter(|e| is_mirrored(e));
        let bare = self.services.get(&key.namespace, &key.name).is_some_and(|s| !has_selector(&s));
        let Some(endpoints) = endpoints.filter(|_| bare) else {
            return self.written.carry_out(&self.client, key, Plan { delete: existing, ..Plan::default() }).await;
        };
        let (mut plan, common, mirror) = (Plan::default(), common(&endpoints), Mirror::of(&endpoints));
        if mirror.invalid > 0 {
            let text = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", mirror.invalid);
            self.recorder.event(&*endpoints, Kind::Warning, "InvalidIPAddress", text);
        }
        if mirror.skipped > 0 {
            let text = format!(
                "A max of {MAX_PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                mirror.skipped
            );
            self.recorder.event(&*endpoints, Kind::Warning, "TooManyAddressesToMirror", text);
        }
        for (family, wanted) in [("IPv4", mirror.v4), ("IPv6", mirror.v6)] {
            let of_family: Vec<_> = existing.iter().filter(|s| s.address_type == family).cloned().collect();
            let part = reconcile::plan(&common, family, &of_family, wanted);
            plan.create.extend(part.create);
            plan.update.extend(part.update);
            plan.delete.extend(part.delete);
        }
        if endpoints.metadata.deletion_timestamp.is_some() {
            plan.create.clear();
        }
        self.written.carry_out(&self.client, key, plan).await
    }
}

fn common(endpoints: &Endpoints) -> Common {
    let meta = &endpoints.metadata;
    let name = meta.name.clone().unwrap_or_default();
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), CONTROLLER.into());
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| key != TRIGGER_TIME && key != LAST_APPLIED);
    Common {
        namespace: meta.namespace.clone(),
        service: name,
        labels,
        annotations: Some(annotations),
        owner: controller_ref(endpoints),
        most: MAX_PER_SUBSET,
        placeholder: false,
    }
}

/// What Endpoints amount to as slices.
#[derive(Default)]
struct Mirror {
    v4: BTreeMap<PortKey, Wanted>,
    v6: BTreeMap<PortKey, Wanted>,
    /// Addresses that are none.
    invalid: usize,
    /// Addresses beyond the limit.
    skipped: usize,
}

impl Mirror {
    fn of(endpoints: &Endpoints) -> Self {
        let mut mirror = Mirror::default();
        endpoints.subsets.iter().flatten().for_each(|subset| mirror.add(subset));
        mirror
    }

    fn add(&mut self, subset: &EndpointSubset) {
        let port = |p: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
            name: Some(p.name.clone().unwrap_or_default()),
            port: Some(p.port),
            protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
            app_protocol: p.app_protocol.clone(),
        };
        let ports: Vec<EndpointPort> = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let mut room = MAX_PER_SUBSET;
        for (address, ready) in ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false))) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                self.invalid += 1;
                continue;
            };
            if room == 0 {
                self.skipped += 1;
                continue;
            }
            room -= 1;
            let family = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
            let group = family.entry(reconcile::port_key(&ports)).or_insert_with(|| Wanted { ports: ports.clone(), endpoints: Vec::new() });
            group.endpoints.push(endpoint(address, ip, ready));
        }
    }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn subsets_become_endpoints_by_family_and_ports() {
        let endpoints: Endpoints = serde_json::from_value(json!({ "metadata": { "name": "web" }, "subsets": [
            { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }], "notReadyAddresses": [{ "ip": "10.0.0.2", "nodeName": "n" }], "ports": [{ "port": 80 }] },
            { "addresses": [{ "ip": "nonsense" }], "ports": [{ "port": 81 }] },
        ] }))
        .unwrap();
        let mirror = Mirror::of(&endpoints);
        assert_eq!((mirror.v4.len(), mirror.v6.len(), mirror.invalid, mirror.skipped), (1, 1, 1, 0));
        let v4: Vec<_> =
            mirror.v4.values().flat_map(|w| &w.endpoints).map(|e| (e.addresses[0].as_str(), e.conditions.as_ref().unwrap().ready)).collect();
        assert_eq!(v4, [("10.0.0.1", Some(true)), ("10.0.0.2", Some(false))]);
    }

    #[test]
    fn locks_and_what_says_so_are_not_mirrored() {
        for (labels, annotations, expected) in [
            (json!({}), json!({}), true),
            (json!({ SKIP: "true" }), json!({}), false),
            (json!({ SKIP: "false" }), json!({}), true),
            (json!({}), json!({ LEADER: "{}" }), false),
        ] {
            let endpoints: Endpoints = serde_json::from_value(json!({ "metadata": { "labels": labels, "annotations": annotations } })).unwrap();
            assert_eq!(is_mirrored(&endpoints), expected);
        }
    }
}
