//! Renews certificates while the instance runs: it may run for longer than they are good.
//!
//! Owns the look at them, every day and whenever SIGUSR1 says that a file has changed. What is renewed is shown to new connections at
//! once; nothing restarts. The client certificate for etcd is the exception: it is taken up at the next start.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::Signal;

use crate::api::authn::TokenIssuer;
use crate::pki::{self, LiveCertificate, Pki, kubeconfig, token_keys};

/// Time between looks. Certificates are renewed months before they end.
const PERIOD: Duration = Duration::from_secs(24 * 3600);

/// The certificates in use that can be replaced.
#[derive(Clone)]
pub struct Live {
    /// What the API server shows its clients.
    pub apiserver: Arc<LiveCertificate>,
    /// What the API server shows kubelets.
    pub kubelet_client: Arc<LiveCertificate>,
    /// Signs and verifies ServiceAccount tokens.
    pub tokens: Arc<TokenIssuer>,
}

/// Where the administrator's credentials are kept.
#[derive(Clone, Debug)]
pub struct Kubeconfigs {
    /// `https://host:port`
    pub server: String,
    /// The instance's own.
    pub own: PathBuf,
    /// The user's, into which the context is merged.
    pub user: PathBuf,
}

impl Kubeconfigs {
    /// Writes both.
    ///
    /// # Errors
    /// One cannot be written.
    pub fn write(&self, pki: &Pki) -> Result<()> {
        let context = kubeconfig::Context { name: "kserver", server: &self.server, ca: pki.cluster.certificate(), client: &pki.admin };
        context.write_new(&self.own)?;
        context.merge_into(&self.user).with_context(|| format!("the cluster runs, but its context cannot be added to {}", self.user.display()))?;
        Ok(())
    }
}

/// What is renewed.
#[derive(Clone)]
pub struct Renewal {
    /// The directory of keys, and what the certificates are made for.
    pub pki: pki::Config,
    /// The kubelet's node and addresses, if there is one. It takes its renewed files up by itself.
    pub kubelet: Option<(String, Vec<IpAddr>)>,
    /// Those in use.
    pub live: Live,
    /// Those that hold the administrator's.
    pub kubeconfigs: Kubeconfigs,
}

impl Renewal {
    /// Looks for as long as it is polled, at each of `changed` too.
    pub async fn run(self, mut changed: Signal) {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = changed.recv() => tracing::info!("looking at keys and certificates again"),
            }
            let renewal = self.clone();
            let looked = tokio::task::spawn_blocking(move || renewal.look()).await;
            if let Err(error) = looked.map_err(Into::into).flatten() {
                tracing::error!("keys and certificates not renewed; tried again tomorrow, or at SIGUSR1: {error:#}");
            }
        }
    }

    /// Takes up the token keys and renews certificates, each whatever is wrong with the other.
    fn look(&self) -> Result<()> {
        let keys = token_keys::reload(&self.pki.dir, &self.live.tokens);
        self.renew()?;
        Ok(keys?)
    }

    /// Renews what nears its end and shows it from now on.
    fn renew(&self) -> Result<()> {
        let before = std::fs::read(self.pki.dir.join("admin.crt")).ok();
        let pki = Pki::load_or_create(&self.pki)?;
        self.live.apiserver.replace(&pki.apiserver)?;
        self.live.kubelet_client.replace(&pki.apiserver_kubelet_client)?;
        if let Some((node, ips)) = &self.kubelet {
            pki.kubelet_serving(node, &[], ips)?;
        }
        if before.is_none_or(|old| old != pki.admin.certificate.as_bytes()) {
            self.kubeconfigs.write(&pki)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_shows_what_is_in_the_files_and_writes_new_credentials_down() {
        let dir = tempfile::tempdir().unwrap();
        let config = pki::Config {
            dir: dir.path().join("pki"),
            node: "n1".into(),
            names: vec![],
            ips: vec![],
            service_ip: [10, 96, 0, 1].into(),
            domain: "cluster.local".into(),
        };
        let pki = Pki::load_or_create(&config).unwrap();
        let live = Live {
            apiserver: LiveCertificate::new(&pki.apiserver).unwrap(),
            kubelet_client: LiveCertificate::new(&pki.apiserver_kubelet_client).unwrap(),
            tokens: Arc::new(pki.token_issuer().unwrap()),
        };
        let kubeconfigs = Kubeconfigs { server: "https://127.0.0.1:6443".into(), own: dir.path().join("own"), user: dir.path().join("user") };
        let renewal = Renewal { pki: config, kubelet: Some(("n1".into(), vec![])), live: live.clone(), kubeconfigs };
        let shown = || live.apiserver.current().cert[0].clone();
        let before = shown();
        renewal.look().unwrap();
        assert_eq!(shown(), before, "what is good stays");
        assert!(!renewal.kubeconfigs.own.exists());
        assert!(dir.path().join("pki/kubelet-serving-n1.crt").exists());
        for name in ["apiserver", "admin"] {
            for end in ["crt", "key"] {
                std::fs::remove_file(dir.path().join(format!("pki/{name}.{end}"))).unwrap();
            }
        }
        renewal.look().unwrap();
        assert_ne!(shown(), before);
        assert!(renewal.kubeconfigs.own.exists() && renewal.kubeconfigs.user.exists());
    }
}
