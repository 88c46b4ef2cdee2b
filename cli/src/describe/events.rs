//! The events section of a description.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

use super::Writer;
use super::format::since;

/// When an event was last seen.
pub fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    series.or_else(|| event.last_timestamp.as_ref().map(|t| t.0)).or_else(|| first_seen(event))
}

/// When it was first seen.
pub fn first_seen(event: &Event) -> Option<Timestamp> {
    event.event_time.as_ref().map(|t| t.0).or_else(|| event.first_timestamp.as_ref().map(|t| t.0))
}

/// `5m (x3 over 10m)`
pub fn interval(event: &Event, now: Timestamp) -> String {
    let first = since(first_seen(event), now);
    if let Some(series) = &event.series {
        return format!("{} (x{} over {first})", since(series.last_observed_time.as_ref().map(|t| t.0), now), series.count.unwrap_or(0));
    }
    match event.count {
        Some(count) if count > 1 => format!("{} (x{count} over {first})", since(event.last_timestamp.as_ref().map(|t| t.0), now)),
        _ => first,
    }
}

/// Writes the section.
pub fn write(w: &mut Writer, mut events: Vec<Event>, now: Timestamp) {
    if events.is_empty() {
        return w.write(0, "Events:\t<none>\n");
    }
    w.flush();
    events.sort_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0));
    w.write(0, "Events:\n  Type\tReason\tAge\tFrom\tMessage\n");
    w.write(1, "----\t------\t----\t----\t-------\n");
    for event in &events {
        let component = event.source.as_ref().and_then(|s| s.component.as_deref()).filter(|c| !c.is_empty());
        let from = component.or(event.reporting_component.as_deref()).unwrap_or_default();
        w.write(
            1,
            &format!(
                "{}\t{}\t{}\t{from}\t{}\n",
                event.type_.as_deref().unwrap_or_default(),
                event.reason.as_deref().unwrap_or_default(),
                interval(event, now),
                event.message.as_deref().unwrap_or_default().trim()
            ),
        );
    }
}
