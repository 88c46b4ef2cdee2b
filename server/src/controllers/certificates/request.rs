//! What a request asks for (`pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// The names in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub groups: Vec<String>,
    /// How many alternative DNS names there are.
    pub hosts: usize,
    /// How many alternative IP addresses there are.
    pub ips: usize,
    /// How many alternative e-mail addresses there are.
    pub emails: usize,
    /// How many alternative URIs there are.
    pub uris: usize,
}

/// Reads a request in PEM and checks that whoever wrote it holds its key.
///
/// # Errors
/// What is wrong with it.
pub fn parse(pem: &[u8]) -> Result<Names, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| format!("PEM block type must be CERTIFICATE REQUEST: {e}"))?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| e.to_string())?;
    request.verify_signature().map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().map(str::to_owned).unwrap_or_default();
    let mut names = Names {
        name: subject.iter_common_name().last().map(text).unwrap_or_default(),
        groups: subject.iter_organization().map(text).collect(),
        ..Names::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension else { continue };
        for name in &alternative.general_names {
            match name {
                GeneralName::DNSName(_) => names.hosts += 1,
                GeneralName::IPAddress(_) => names.ips += 1,
                GeneralName::RFC822Name(_) => names.emails += 1,
                GeneralName::URI(_) => names.uris += 1,
                _ => {}
            }
        }
    }
    Ok(names)
}

/// Refuses usages that are not those of a node's certificate; RSA keys also encipher.
fn node_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let with = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let without = BTreeSet::from(["digital signature", purpose]);
    if usages == with || usages == without {
        return Ok(());
    }
    // Upstream lists them in alphabetical order.
    Err(format!("usages did not match [{}]", with.into_iter().collect::<Vec<_>>().join(" ")))
}

fn node_subject(names: &Names) -> Result<(), String> {
    if names.groups == ["system:nodes"] { Ok(()) } else { Err("subject organization is not system:nodes".into()) }
}

fn node_name(names: &Names) -> Result<(), String> {
    if names.name.starts_with("system:node:") { Ok(()) } else { Err("subject common name does not begin with system:node: ".into()) }
}

fn no_emails_or_uris(names: &Names) -> Result<(), String> {
    match (names.emails, names.uris) {
        (0, 0) => Ok(()),
        (0, _) => Err("URI subjectAltNames are not allowed".into()),
        _ => Err("Email subjectAltNames are not allowed".into()),
    }
}

/// Whether a node may have this as its client certificate (`ValidateKubeletClientCSR`).
///
/// # Errors
/// What it may not have, in upstream's words.
pub fn validate_node_client(names: &Names, usages: &[String]) -> Result<(), String> {
    node_subject(names)?;
    if names.hosts > 0 {
        return Err("DNS subjectAltNames are not allowed".into());
    }
    if names.ips > 0 {
        return Err("IP subjectAltNames are not allowed".into());
    }
    no_emails_or_uris(names)?;
    node_name(names)?;
    node_usages(usages, "client auth")
}

/// Whether a node may have this as its serving certificate (`ValidateKubeletServingCSR`).
///
/// # Errors
/// What it may not have, in upstream's words.
pub fn validate_node_serving(names: &Names, usages: &[String]) -> Result<(), String> {
    node_subject(names)?;
    if names.hosts + names.ips == 0 {
        return Err("DNS or IP subjectAltName is required".into());
    }
    no_emails_or_uris(names)?;
    node_usages(usages, "server auth")?;
    node_name(names)
}

/// Whether a node may have this as its client certificate.
pub fn is_node_client(names: &Names, usages: &[String]) -> bool {
    validate_node_client(names, usages).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, group: &str, hosts: &[&str]) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(hosts.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.serialize_request(&key).unwrap().pem().unwrap().into_bytes()
    }

    #[test]
    fn names_are_read_from_the_request() {
        let names = parse(&request("system:node:n", "system:nodes", &["n", "10.0.0.1"])).unwrap();
        assert_eq!(names, Names { name: "system:node:n".into(), groups: vec!["system:nodes".into()], hosts: 1, ips: 1, ..Names::default() });
        assert!(parse(b"nonsense").is_err());
    }

    #[test]
    fn a_client_certificate_of_a_node_names_the_node_and_nothing_else() {
        let names = |name: &str, group: &str, hosts| Names { name: name.into(), groups: vec![group.into()], hosts, ..Names::default() };
        let usages = |list: &[&str]| list.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>();
        let (client, server) = (usages(&["digital signature", "client auth"]), usages(&["digital signature", "key encipherment", "server auth"]));
        for (names, usages, good) in [
            (names("system:node:n", "system:nodes", 0), &client, true),
            (names("system:node:n", "system:nodes", 0), &server, false),
            (names("system:node:n", "system:nodes", 1), &client, false),
            (names("jane", "system:nodes", 0), &client, false),
            (names("system:node:n", "system:masters", 0), &client, false),
        ] {
            assert_eq!(is_node_client(&names, usages), good, "{names:?} {usages:?}");
        }
    }

    #[test]
    fn a_serving_certificate_of_a_node_is_for_its_names_and_says_what_is_wrong() {
        let node = Names { name: "system:node:n".into(), groups: vec!["system:nodes".into()], hosts: 1, ips: 1, ..Names::default() };
        let usages = |list: &[&str]| list.iter().map(|u| (*u).to_owned()).collect::<Vec<_>>();
        let server = usages(&["digital signature", "key encipherment", "server auth"]);
        assert_eq!(validate_node_serving(&node, &server), Ok(()));
        let said = |names: Names, usages: &[String]| validate_node_serving(&names, usages).unwrap_err();
        assert_eq!(said(Names { hosts: 0, ips: 0, ..node.clone() }, &server), "DNS or IP subjectAltName is required");
        assert_eq!(said(Names { emails: 1, ..node.clone() }, &server), "Email subjectAltNames are not allowed");
        assert_eq!(said(Names { name: "n".into(), ..node.clone() }, &server), "subject common name does not begin with system:node: ");
        let client = usages(&["digital signature", "client auth"]);
        assert_eq!(said(node, &client), "usages did not match [digital signature key encipherment server auth]");
    }
}
