//! Where an HTTP probe or hook goes, and where a redirect leads it (`pkg/probe/http/request.go`, `RedirectChecker`).
//!
//! Pure.

use k8s_openapi::api::core::v1::HTTPGetAction;

use super::check::{Target, host_of, port};

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
}

/// `host:port`, with brackets round an IPv6 address.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl Place {
    /// Where an action says to go. The error is for the user.
    pub(super) fn of(target: &Target, action: &HTTPGetAction) -> Result<Self, String> {
        let path = action.path.clone().filter(|p| !p.is_empty()).unwrap_or_else(|| "/".into());
        Ok(Place {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host: host_of(action.host.as_deref(), target.ip),
            port: port(&target.container, &action.port)?,
            path: if path.starts_with('/') { path } else { format!("/{path}") },
        })
    }

    /// As users read it in events.
    pub(super) fn url(&self) -> String {
        format!("{}://{}{}", if self.tls { "https" } else { "http" }, authority(&self.host, self.port), self.path)
    }

    /// Where a `Location` leads; `None` if to another host, whose answer does not concern the probe. Port and scheme may differ.
    pub(super) fn redirected(&self, location: &str) -> Option<Place> {
        let location = location.split('#').next().unwrap_or_default();
        let absolute = match location.strip_prefix("//") {
            Some(rest) => Some((self.tls, rest)),
            None => location.strip_prefix("https://").map(|r| (true, r)).or_else(|| location.strip_prefix("http://").map(|r| (false, r))),
        };
        let Some((tls, rest)) = absolute else {
            // Another scheme cannot be followed.
            let has_scheme = location.split(['/', '?']).next().is_some_and(|first| first.contains(':'));
            return (!has_scheme).then(|| Place { path: self.resolve(location), ..self.clone() });
        };
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let uri: http::uri::Authority = rest[..at].parse().ok()?;
        let host = uri.host().trim_matches(['[', ']']);
        let path = match &rest[at..] {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (host == self.host).then(|| Place { tls, host: host.to_owned(), port, path })
    }

    /// A reference without scheme and host, resolved against this path (RFC 3986, 5.2).
    fn resolve(&self, reference: &str) -> String {
        let own = self.path.split('?').next().unwrap_or_default();
        let (path, query) = reference.split_once('?').map_or((reference, None), |(p, q)| (p, Some(q)));
        let joined = match path {
            "" if query.is_none() => return self.path.clone(),
            "" => own.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => without_dots(&format!("{}/{path}", own.rsplit_once('/').map_or("", |(dir, _)| dir))),
        };
        query.map_or(joined.clone(), |q| format!("{joined}?{q}"))
    }
}

/// A path without `.` and `..`.
fn without_dots(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let mut kept: Vec<&str> = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        match *part {
            "." | ".." => {
                if *part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_followed_on_the_same_host_only() {
        let here = Place { tls: false, host: "10.0.0.1".into(), port: 8080, path: "/a/b?x=1".into() };
        for (location, expected) in [
            ("/c", Some("http://10.0.0.1:8080/c")),
            ("c", Some("http://10.0.0.1:8080/a/c")),
            ("../c?y", Some("http://10.0.0.1:8080/c?y")),
            ("./", Some("http://10.0.0.1:8080/a/")),
            ("?y=2", Some("http://10.0.0.1:8080/a/b?y=2")),
            ("c#part", Some("http://10.0.0.1:8080/a/c")),
            ("http://10.0.0.1:9090/c", Some("http://10.0.0.1:9090/c")),
            ("http://10.0.0.1?q", Some("http://10.0.0.1:80/?q")),
            ("https://10.0.0.1/c", Some("https://10.0.0.1:443/c")),
            ("//10.0.0.1:1/c", Some("http://10.0.0.1:1/c")),
            ("http://other.example/", None),
            ("mailto:nobody", None),
        ] {
            assert_eq!(here.redirected(location).map(|p| p.url()).as_deref(), expected, "{location}");
        }
    }
}
