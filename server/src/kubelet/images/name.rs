//! Image names: the default tag, the full name and the registry (`distribution/reference`).
//!
//! Pure functions only.

/// Splits off a digest and a tag: repository, tag, digest.
fn split(image: &str) -> (&str, Option<&str>, Option<&str>) {
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    // A colon after the last slash starts a tag; one before it belongs to the registry's port.
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    match rest[slash..].find(':') {
        Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..]), digest),
        None => (rest, None, digest),
    }
}

fn is_valid(image: &str) -> bool {
    let (repository, tag, digest) = split(image);
    let path = match repository.split_once('/') {
        Some((first, rest)) if is_registry(first) => rest,
        _ => repository,
    };
    let component = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    let tag_is_valid = tag.is_none_or(|t| {
        !t.is_empty() && t.len() <= 128 && !t.starts_with(['.', '-']) && t.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    });
    let digest_is_valid = digest.is_none_or(|d| d.split_once(':').is_some_and(|(a, hex)| !a.is_empty() && hex.len() >= 32));
    !path.is_empty() && path.split('/').all(component) && tag_is_valid && digest_is_valid
}

fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

/// The name with `:latest` added where neither tag nor digest is given; `None` if it is no image name.
pub fn with_tag(image: &str) -> Option<String> {
    if !is_valid(image) {
        return None;
    }
    let (_, tag, digest) = split(image);
    Some(if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() })
}

/// The full name: `busybox` → `docker.io/library/busybox:latest`.
pub fn normalize(image: &str) -> Option<String> {
    let tagged = with_tag(image)?;
    Some(match tagged.split_once('/') {
        Some((first, _)) if is_registry(first) => tagged,
        Some(_) => format!("docker.io/{tagged}"),
        None => format!("docker.io/library/{tagged}"),
    })
}

/// Whether the name means the newest build.
pub fn is_latest(image: &str) -> bool {
    let (_, tag, digest) = split(image);
    digest.is_none() && tag.is_none_or(|t| t == "latest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_become_full_names() {
        for (short, full) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("localhost/x", "localhost/x:latest"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
        ] {
            assert_eq!(normalize(short).as_deref(), Some(full), "{short}");
        }
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        assert_eq!(normalize(&digest), Some(format!("docker.io/library/{digest}")));
    }

    #[test]
    fn what_is_no_image_name_is_refused() {
        for image in ["", "UPPER/case:", "a b", "busybox:", "-x", "busybox:ta g", "Busybox"] {
            assert_eq!(normalize(image), None, "{image}");
        }
    }
}
