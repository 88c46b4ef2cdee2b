//! What a request asks for (`pkg/apis/certificates/helpers.go`).

use std::collections::BTreeSet;

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

/// The names in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Common name.
    pub name: String,
    /// Organizations.
    pub groups: Vec<String>,
    /// How many alternative names there are.
    pub alternative: usize,
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
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension {
            names.alternative += alternative.general_names.len();
        }
    }
    Ok(names)
}

/// Whether a node may have this as its client certificate (`ValidateKubeletClientCSR`).
pub fn is_node_client(names: &Names, usages: &[String]) -> bool {
    let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let without = BTreeSet::from(["digital signature", "client auth"]);
    let with = BTreeSet::from(["digital signature", "key encipherment", "client auth"]);
    names.groups == ["system:nodes"] && names.name.starts_with("system:node:") && names.alternative == 0 && (usages == with || usages == without)
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
        assert_eq!(names, Names { name: "system:node:n".into(), groups: vec!["system:nodes".into()], alternative: 2 });
        assert!(parse(b"nonsense").is_err());
    }

    #[test]
    fn a_client_certificate_of_a_node_names_the_node_and_nothing_else() {
        let names = |name: &str, group: &str, alternative| Names { name: name.into(), groups: vec![group.into()], alternative };
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
}
