//! Publishes the cluster's CA as the ConfigMap `kube-root-ca.crt` in every namespace
//! (`pkg/controller/certificates/rootcacertpublisher/publisher.go`).

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::queue::{Key, Queue};
use super::{Context, Error, synced};
use crate::informers::Change;

const NAME: &str = "kube-root-ca.crt";
const DATA: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

/// Starts the controller; without a CA in the settings there is nothing to publish.
pub fn start(ctx: Context) {
    if ctx.config.root_ca.is_empty() {
        return;
    }
    let namespaces = ctx.informers.get::<Namespace>();
    let maps = ctx.informers.select::<ConfigMap>("metadata.name=kube-root-ca.crt");
    let queue: Queue<Key> = Queue::new();
    ctx.enqueue_all(&namespaces, &queue);
    let into = queue.clone();
    ctx.on(&maps, move |change| {
        if !matches!(change, Change::Added(_)) {
            into.add(Key::new("", change.object().metadata.namespace.clone().unwrap_or_default()));
        }
    });
    let (client, config) = (ctx.client.clone(), ctx.config.clone());
    ctx.work(&queue, 1, vec![synced(&namespaces), synced(&maps)], move |key| {
        let (client, namespaces, maps, config) = (client.clone(), namespaces.clone(), maps.clone(), config.clone());
        async move {
            if namespaces.get("", &key.name).is_none_or(|n| n.metadata.deletion_timestamp.is_some()) {
                return Ok(());
            }
            let api: Api<ConfigMap> = Api::namespaced(client, &key.name);
            let current = maps.get(&key.name, NAME);
            let mut wanted = current.as_deref().cloned().unwrap_or_else(|| ConfigMap {
                metadata: ObjectMeta { name: Some(NAME.into()), namespace: Some(key.name.clone()), ..ObjectMeta::default() },
                ..ConfigMap::default()
            });
            wanted.data = Some([(DATA.to_owned(), config.root_ca.clone())].into());
            wanted.metadata.annotations.get_or_insert_default().insert(DESCRIPTION.into(), TEXT.into());
            let written = match current {
                Some(current) if *current == wanted => return Ok(()),
                Some(_) => api.replace(NAME, &PostParams::default(), &wanted).await,
                None => api.create(&PostParams::default(), &wanted).await,
            };
            match written.map_err(Error::from) {
                Ok(_) => Ok(()),
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        }
    });
}
