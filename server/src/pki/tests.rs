use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::api::authn::ClientCertificate;

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.join("pki"),
        node: "node-1".into(),
        names: vec!["api.example".into()],
        ips: vec!["192.168.7.5".parse().unwrap()],
        service_ip: Ipv4Addr::new(10, 96, 0, 1),
        domain: "cluster.local".into(),
    }
}

/// Shakes hands and returns who the server saw.
async fn handshake(pki: &Pki, name: &str, ca: &str, own: Option<&Pair>) -> Result<Option<ClientCertificate>, String> {
    let serving = ServingCertificate::new(&pki.apiserver).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(server_config(serving, pki.cluster.certificate(), false).unwrap());
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client_config(ca, own).unwrap()));
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = async move {
        let mut stream = connector.connect(name, near).await.map_err(|e| e.to_string())?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        // TLS 1.3: a refused client certificate shows only when the client reads.
        stream.read_exact(&mut [0]).await.map(|_| ()).map_err(|e| e.to_string())
    };
    let server = async move {
        let mut stream = acceptor.accept(far).await.map_err(|e| e.to_string())?;
        stream.read_exact(&mut [0]).await.map_err(|e| e.to_string())?;
        stream.write_all(b"y").await.map_err(|e| e.to_string())?;
        Ok::<_, String>(stream.get_ref().1.peer_certificates().map(|c| ClientCertificate::parse(&c[0]).unwrap()))
    };
    let (seen, answer) = tokio::join!(server, client);
    answer?;
    seen
}

#[tokio::test]
async fn a_client_reaches_the_api_server_by_every_name_and_is_known_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(&config(dir.path())).unwrap();
    let names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "node-1",
        "api.example",
        "127.0.0.1",
        "10.96.0.1",
        "192.168.7.5",
    ];
    for name in names {
        assert_eq!(handshake(&pki, name, pki.cluster.certificate(), None).await, Ok(None), "{name}");
    }
    assert!(handshake(&pki, "elsewhere", pki.cluster.certificate(), None).await.is_err());
    let admin = handshake(&pki, "localhost", pki.cluster.certificate(), Some(&pki.admin)).await.unwrap().unwrap();
    let user = admin.user_at(Timestamp::now()).unwrap();
    assert_eq!(
        (user.name.as_str(), user.groups.as_slice()),
        ("kubernetes-admin", &["kubeadm:cluster-admins".to_owned(), "system:authenticated".into()][..])
    );
    let node = pki.node_client("node-1").unwrap();
    let node = handshake(&pki, "localhost", pki.cluster.certificate(), Some(&node)).await.unwrap().unwrap();
    assert_eq!(node.user_at(Timestamp::now()).unwrap().name, "system:node:node-1");
    let year = jiff::SignedDuration::from_hours(24 * 400);
    assert!(node.user_at(Timestamp::now() + year).is_err(), "an expired certificate is nobody, on a live connection too");
}

#[tokio::test]
async fn authorities_do_not_stand_in_for_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(&config(dir.path())).unwrap();
    for ca in [pki.etcd.certificate(), pki.kubelet.certificate()] {
        assert!(handshake(&pki, "localhost", ca, None).await.is_err());
    }
    let kubelet = pki.kubelet_serving("node-1", &[], &[]).unwrap();
    for stranger in [&pki.apiserver_etcd_client, &pki.etcd_server, &kubelet, &pki.apiserver] {
        assert!(handshake(&pki, "localhost", pki.cluster.certificate(), Some(stranger)).await.is_err(), "no client certificate of the cluster's CA");
    }
}

#[test]
fn loading_again_gives_the_same_certificates_until_they_near_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let start = Timestamp::now();
    let first = Pki::load_at(&config, start).unwrap();
    let again = Pki::load_at(&config, start).unwrap();
    assert!(
        first.apiserver == again.apiserver
            && first.admin == again.admin
            && first.token_issuer().unwrap().jwks() == again.token_issuer().unwrap().jwks()
    );
    let later = Pki::load_at(&config, start + jiff::SignedDuration::from_hours(24 * 300)).unwrap();
    assert!(later.apiserver != first.apiserver && later.cluster.certificate() == first.cluster.certificate());
    let renamed = Pki::load_at(&Config { names: vec!["other.example".into()], ..config.clone() }, start).unwrap();
    assert!(renamed.apiserver != later.apiserver && renamed.admin == later.admin, "only what names the machine is issued anew");
}

#[test]
fn private_files_are_private_and_anything_else_stops_the_start_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(Pki::load_or_create(&config).unwrap());
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config.dir), 0o700);
    for file in ["ca.key", "sa.key", "admin.key", "etcd/ca.key"] {
        assert_eq!(mode(&config.dir.join(file)), 0o600, "{file}");
    }
    let key = config.dir.join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Pki::load_or_create(&config).err().unwrap().to_string();
    assert!(error.contains("chmod 600") && !error.contains('\n'), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&config.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(Pki::load_or_create(&config).err().unwrap().to_string().contains("chmod 700"));
    std::fs::set_permissions(&config.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let good = std::fs::read(&key).unwrap();
    for damage in [&b""[..], b"garbage", &good[..good.len() / 2]] {
        std::fs::write(&key, damage).unwrap();
        let error = Pki::load_or_create(&config).err().unwrap().to_string();
        assert!(error.contains("ca.crt") && !error.contains('\n'), "{error}");
    }
    std::fs::remove_file(&key).unwrap();
    assert!(Pki::load_or_create(&config).err().unwrap().to_string().contains("missing"));
}

#[test]
fn a_rotated_token_key_signs_and_the_old_one_verifies_until_it_is_revoked() {
    use crate::api::authn::tokens::{Claims, DEFAULT_ISSUER, Kubernetes, Ref, TokenError};
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let pki = Pki::load_or_create(&config).unwrap();
    let now = Timestamp::now();
    let old = pki.token_issuer().unwrap();
    let claims = Claims {
        aud: vec![DEFAULT_ISSUER.into()],
        exp: now.as_second() + 600,
        iat: now.as_second(),
        nbf: now.as_second(),
        iss: DEFAULT_ISSUER.into(),
        jti: "j".into(),
        sub: "system:serviceaccount:ns:sa".into(),
        kubernetes: Kubernetes {
            namespace: "ns".into(),
            node: None,
            pod: None,
            secret: None,
            serviceaccount: Ref { name: "sa".into(), uid: "u".into() },
            warnafter: None,
        },
    };
    let token = old.sign(&claims).unwrap();
    token_keys::rotate(pki.dir()).unwrap();
    let new = Pki::load_or_create(&config).unwrap().token_issuer().unwrap();
    assert_eq!(*new.verify(&token, now).unwrap(), claims);
    assert!(old.verify(&new.sign(&claims).unwrap(), now).is_err());
    assert_eq!(new.jwks()["keys"].as_array().unwrap().len(), 2);
    // One that runs takes the new keys up, and knows a token no more that it has verified before.
    assert!(old.verify(&token, now).is_ok());
    token_keys::reload(pki.dir(), &old).unwrap();
    assert!(old.verify(&token, now).is_ok() && old.verify(&new.sign(&claims).unwrap(), now).is_ok());
    token_keys::revoke(pki.dir()).unwrap();
    token_keys::reload(pki.dir(), &old).unwrap();
    assert!(matches!(old.verify(&token, now), Err(TokenError::UnknownKey)));
    assert!(old.verify(&new.sign(&claims).unwrap(), now).is_ok());
}

#[test]
fn a_signed_request_keeps_its_subject_and_never_becomes_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::load_or_create(&config(dir.path())).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n2");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let usages = [rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let signed = pki.cluster.sign(&request, &usages, jiff::SignedDuration::from_hours(1), Timestamp::now()).unwrap();
    let der = rustls_pemfile::certs(&mut signed.as_bytes()).next().unwrap().unwrap();
    let user = ClientCertificate::parse(&der).unwrap().user_at(Timestamp::now()).unwrap();
    assert_eq!((user.name.as_str(), user.in_group("system:nodes")), ("system:node:n2", true));
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca());
    assert!(pki.cluster.sign("garbage", &usages, jiff::SignedDuration::from_hours(1), Timestamp::now()).is_err());
}
