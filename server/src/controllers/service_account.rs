//! Keeps the service account `default` in every namespace (`pkg/controller/serviceaccount/serviceaccounts_controller.go`).

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::queue::{Key, Queue};
use super::{Context, Error, synced};
use crate::informers::Change;

const NAME: &str = "default";

/// Starts the controller.
pub fn start(ctx: Context) {
    let namespaces = ctx.informers.get::<Namespace>();
    // Only the accounts this is about are kept.
    let accounts = ctx.informers.select::<ServiceAccount>("metadata.name=default");
    let queue: Queue<Key> = Queue::new();
    ctx.enqueue_all(&namespaces, &queue);
    let into = queue.clone();
    ctx.on(&accounts, move |change| {
        if let Change::Deleted(account) = change {
            into.add(Key::new("", account.metadata.namespace.clone().unwrap_or_default()));
        }
    });
    let client = ctx.client.clone();
    ctx.work(&queue, 1, vec![synced(&namespaces), synced(&accounts)], move |key| {
        let (client, namespaces, accounts) = (client.clone(), namespaces.clone(), accounts.clone());
        async move {
            let active = namespaces.get("", &key.name).is_some_and(|n| n.metadata.deletion_timestamp.is_none());
            if !active || accounts.get(&key.name, NAME).is_some() {
                return Ok(());
            }
            let metadata = ObjectMeta { name: Some(NAME.into()), namespace: Some(key.name.clone()), ..ObjectMeta::default() };
            let account = ServiceAccount { metadata, ..ServiceAccount::default() };
            match Api::namespaced(client, &key.name).create(&PostParams::default(), &account).await.map_err(Error::from) {
                Ok(_) => Ok(()),
                Err(error) if error.is_already_exists() || error.is_namespace_terminating() || error.is_not_found() => Ok(()),
                Err(error) => Err(error),
            }
        }
    });
}
