//! A strategy with its type erased: what the generic verbs call.
//!
//! Owns the way from an [`Object`] to the type that its kind's strategy knows. Must hold no behaviour of its own.

use std::marker::PhantomData;

use serde_json::Value;
use shared::field;

use super::scale::{self, Parts};
use super::{Claim, Object, PrintContext, Ranges, Strategy, store};

/// The behaviour of a kind over erased objects. Implemented once over all [`Strategy`]s, and once for kinds that are made at run time.
pub trait Ops: Send + Sync {
    /// Decodes JSON; the error names the field where serde can.
    ///
    /// # Errors
    /// It is not an object of the kind.
    fn decode(&self, bytes: &[u8]) -> serde_json::Result<Object>;
    /// Decodes JSON and notes unknown and duplicate fields, and where a wrong value was.
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn decode_with(&self, bytes: &[u8], findings: &store::Findings) -> serde_json::Result<Object>;
    /// [`Strategy::default`]
    fn default(&self, object: &mut Object);
    /// [`Strategy::prepare_for_create`]
    fn prepare_for_create(&self, object: &mut Object);
    /// [`Strategy::validate`]
    fn validate(&self, object: &Object) -> field::ErrorList;
    /// [`Strategy::prepare_for_update`]
    fn prepare_for_update(&self, new: &mut Object, old: &Object);
    /// [`Strategy::validate_update`]
    fn validate_update(&self, new: &Object, old: &Object) -> field::ErrorList;
    /// [`Strategy::prepare_for_status_update`]
    fn prepare_for_status_update(&self, new: &mut Object, old: &Object);
    /// [`Strategy::validate_status_update`]
    fn validate_status_update(&self, new: &Object, old: &Object) -> field::ErrorList;
    /// [`Strategy::spec_changed`]
    fn spec_changed(&self, new: &Object, old: &Object) -> bool;
    /// [`Strategy::claims`]
    fn claims(&self, object: &Object) -> Vec<Claim>;
    /// [`Strategy::allocate`]
    ///
    /// # Errors
    /// Nothing is left to choose from, or what was asked for cannot be had.
    fn allocate(&self, object: &mut Object, old: Option<&Object>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), field::Error>;
    /// [`Strategy::grace_period`]
    fn grace_period(&self, object: &Object, requested: Option<i64>) -> Option<i64>;
    /// [`Strategy::holds_deletion`]
    fn holds_deletion(&self, object: &Object) -> bool;
    /// [`Strategy::begin_deletion`]
    fn begin_deletion(&self, object: &mut Object);
    /// [`Strategy::warnings`]
    fn warnings(&self, object: &Object) -> Vec<String>;
    /// [`Strategy::validate_name`]
    ///
    /// # Errors
    /// Upstream's message.
    fn validate_name(&self, name: &str) -> Result<(), String>;
    /// [`Strategy::cells`]
    fn cells(&self, object: &Object, context: &PrintContext) -> Vec<Value>;
    /// What `…/scale` shows of an object; `None` for a kind without one.
    fn scale(&self, object: &Object) -> Option<Parts> {
        scale::of(object)
    }
    /// Sets the replicas wanted. Returns whether the kind has a scale.
    fn set_replicas(&self, object: &mut Object, replicas: i32) -> bool {
        scale::set_replicas(object, replicas)
    }
}

/// A strategy's behaviour.
pub(super) fn erased<S: Strategy>() -> Box<dyn Ops> {
    Box::new(Typed::<S>(PhantomData))
}

struct Typed<S>(PhantomData<fn() -> S>);

const RIGHT_TYPE: &str = "verbs hand a strategy only objects that its own decode made";

fn typed<S: Strategy>(object: &Object) -> &S::Object {
    object.downcast_ref().expect(RIGHT_TYPE)
}

fn typed_mut<S: Strategy>(object: &mut Object) -> &mut S::Object {
    object.downcast_mut().expect(RIGHT_TYPE)
}

impl<S: Strategy> Ops for Typed<S> {
    fn decode(&self, bytes: &[u8]) -> serde_json::Result<Object> {
        store::from_json::<S::Object>(bytes, None).map(Object::new)
    }
    fn decode_with(&self, bytes: &[u8], findings: &store::Findings) -> serde_json::Result<Object> {
        store::from_json::<S::Object>(bytes, Some(findings)).map(Object::new)
    }
    fn default(&self, object: &mut Object) {
        S::default(typed_mut::<S>(object));
    }
    fn prepare_for_create(&self, object: &mut Object) {
        S::prepare_for_create(typed_mut::<S>(object));
    }
    fn validate(&self, object: &Object) -> field::ErrorList {
        S::validate(typed::<S>(object))
    }
    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        S::prepare_for_update(typed_mut::<S>(new), typed::<S>(old));
    }
    fn validate_update(&self, new: &Object, old: &Object) -> field::ErrorList {
        S::validate_update(typed::<S>(new), typed::<S>(old))
    }
    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        S::prepare_for_status_update(typed_mut::<S>(new), typed::<S>(old));
    }
    fn validate_status_update(&self, new: &Object, old: &Object) -> field::ErrorList {
        S::validate_status_update(typed::<S>(new), typed::<S>(old))
    }
    fn spec_changed(&self, new: &Object, old: &Object) -> bool {
        S::spec_changed(typed::<S>(new), typed::<S>(old))
    }
    fn claims(&self, object: &Object) -> Vec<Claim> {
        S::claims(typed::<S>(object))
    }
    fn allocate(&self, object: &mut Object, old: Option<&Object>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), field::Error> {
        S::allocate(typed_mut::<S>(object), old.map(typed::<S>), ranges, taken)
    }
    fn grace_period(&self, object: &Object, requested: Option<i64>) -> Option<i64> {
        S::grace_period(typed::<S>(object), requested)
    }
    fn holds_deletion(&self, object: &Object) -> bool {
        S::holds_deletion(typed::<S>(object))
    }
    fn begin_deletion(&self, object: &mut Object) {
        S::begin_deletion(typed_mut::<S>(object));
    }
    fn warnings(&self, object: &Object) -> Vec<String> {
        S::warnings(typed::<S>(object))
    }
    fn validate_name(&self, name: &str) -> Result<(), String> {
        S::validate_name(name)
    }
    fn cells(&self, object: &Object, context: &PrintContext) -> Vec<Value> {
        S::cells(typed::<S>(object), context)
    }
}
