//! Deletes requests that are over, or that nobody has answered (`pkg/controller/certificates/cleaner/cleaner.go`).

use std::time::Duration;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::{condition, follow, is_issued};
use crate::controllers::error::found;
use crate::controllers::queue::{Key, Queue};
use crate::controllers::{Context, elapsed, now};

/// How long an answer can be read.
const ANSWERED: Duration = Duration::from_secs(3600);
/// How long a request waits for an answer.
const PENDING: Duration = Duration::from_secs(24 * 3600);

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue = Queue::new();
    let (client, again) = (ctx.client.clone(), queue.clone());
    follow(&ctx, &queue, move |request| {
        let (client, again) = (client.clone(), again.clone());
        async move {
            match time_left(&request, &now()) {
                None => {}
                Some(left) if left.is_zero() => {
                    let same = Preconditions { uid: request.metadata.uid.clone(), resource_version: request.metadata.resource_version.clone() };
                    let api: Api<CertificateSigningRequest> = Api::all(client);
                    let name = request.metadata.name.as_deref().unwrap_or_default();
                    found(api.delete(name, &DeleteParams::default().preconditions(same)).await)?;
                }
                Some(left) => again.add_after(Key::of(&*request), left),
            }
            Ok(())
        }
    });
}

/// When a certificate ends, in seconds since 1970.
fn end(certificate: &[u8]) -> Option<i64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate).ok()?;
    Some(pem.parse_x509().ok()?.validity().not_after.timestamp())
}

/// How long a request has left; `None` for one that is approved and not signed yet.
fn time_left(request: &CertificateSigningRequest, now: &Time) -> Option<Duration> {
    let left = |since: Option<&Time>, lasts: Duration| since.map(|since| lasts.saturating_sub(elapsed(since, now)));
    for answer in ["Denied", "Failed"] {
        if let Some(given) = condition(request, answer) {
            return left(given.last_update_time.as_ref(), ANSWERED);
        }
    }
    match condition(request, "Approved") {
        Some(given) if is_issued(request) => {
            // A certificate that is over is of no use even to those who come late.
            let end = request.status.as_ref().and_then(|s| s.certificate.as_ref()).and_then(|c| end(&c.0));
            let lasts = end.map(|end| Duration::from_secs(u64::try_from(end.saturating_sub(now.0.as_second())).unwrap_or(0)));
            [left(given.last_update_time.as_ref(), ANSWERED), lasts].into_iter().flatten().min()
        }
        Some(_) => None,
        None => left(request.metadata.creation_timestamp.as_ref(), PENDING),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::jiff::Timestamp;

    use super::super::add_condition;
    use super::*;

    #[test]
    fn answers_stay_for_an_hour_and_questions_for_a_day() {
        let made = Time(Timestamp::from_second(0).unwrap());
        let at = |s: i64| Time(Timestamp::from_second(s).unwrap());
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(made.clone());
        assert_eq!(time_left(&request, &at(3600)), Some(PENDING - ANSWERED));
        add_condition(&mut request, "Approved", "", "");
        request.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].last_update_time = Some(made);
        assert_eq!(time_left(&request, &at(7200)), None);
        request.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
        assert_eq!(time_left(&request, &at(600)), Some(Duration::from_secs(3000)));
        assert_eq!(time_left(&request, &at(7200)), Some(Duration::ZERO));
    }

    #[test]
    fn a_request_goes_with_its_certificate() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let before: Timestamp = "2020-01-01T23:59:00Z".parse().unwrap();
        let mut request = CertificateSigningRequest::default();
        add_condition(&mut request, "Approved", "", "");
        let status = request.status.as_mut().unwrap();
        status.conditions.as_mut().unwrap()[0].last_update_time = Some(Time(before));
        status.certificate = Some(ByteString(pem.into_bytes()));
        assert_eq!(time_left(&request, &Time(before)), Some(Duration::from_secs(60)));
        assert_eq!(time_left(&request, &Time("2020-01-02T00:00:01Z".parse().unwrap())), Some(Duration::ZERO));
    }
}
