//! The API over HTTP, in process and through stock kubectl, on a real etcd.

mod formats;
mod guards;
mod in_process;
mod kubectl;
mod kubelet;
mod reads;
mod server;
mod subresources;
mod watches;
mod writes;
