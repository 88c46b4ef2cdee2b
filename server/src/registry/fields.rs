//! Selectable fields of an object: what field selectors compare with.
//!
//! Owns where a kind's fields are read from. The cache walks an object once, collecting [`paths`], and [`choose`] makes fields of them.

use super::Resource;

/// Where a field is read from when that is not its own JSON path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldSource {
    /// Its name in selectors, one of `Strategy::FIELDS`.
    pub field: &'static str,
    /// JSON paths, tried in turn until one holds a value that is not empty.
    pub paths: &'static [&'static str],
    /// Its value when there is none.
    pub absent: &'static str,
}

fn source(sources: &'static [FieldSource], field: &str) -> Option<&'static FieldSource> {
    sources.iter().find(|s| s.field == field)
}

/// The JSON paths to collect, in the order that [`choose`] expects their values in.
pub fn paths(resource: &Resource) -> impl Iterator<Item = &'static str> {
    let sources = resource.field_sources;
    resource.fields.iter().flat_map(move |field| source(sources, field).map_or(std::slice::from_ref(field), |s| s.paths).iter().copied())
}

/// The values of `resource.fields`, in their order, from those of its [`paths`]. An absent value is empty.
pub fn choose(resource: &Resource, values: Vec<Box<str>>) -> Box<[Box<str>]> {
    if resource.field_sources.is_empty() {
        return values.into_boxed_slice();
    }
    choose_from(resource.fields, resource.field_sources, values)
}

fn choose_from(fields: &[&'static str], sources: &'static [FieldSource], values: Vec<Box<str>>) -> Box<[Box<str>]> {
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or_default();
    let one = |field: &&'static str| match source(sources, field) {
        None => next(),
        Some(source) => {
            // Every path's value is taken, whichever is chosen.
            let found: Vec<Box<str>> = source.paths.iter().map(|_| next()).collect();
            found.into_iter().find(|v| !v.is_empty()).unwrap_or_else(|| source.absent.into())
        }
    };
    fields.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_from_the_first_path_that_holds_something() {
        static SOURCES: [FieldSource; 2] = [
            FieldSource { field: "source", paths: &["source.component", "reportingComponent"], absent: "" },
            FieldSource { field: "spec.hostNetwork", paths: &["spec.hostNetwork"], absent: "false" },
        ];
        let of = |values: [&str; 4]| {
            let values = values.iter().map(|v| Box::from(*v)).collect();
            choose_from(&["reason", "source", "spec.hostNetwork"], &SOURCES, values).into_vec().join("|")
        };
        assert_eq!(of(["r", "a", "b", "true"]), "r|a|true");
        assert_eq!(of(["r", "", "b", ""]), "r|b|false");
        assert_eq!(of(["", "", "", ""]), "||false");
    }
}
