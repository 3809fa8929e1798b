//! Schemes, by their names.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use webhooks_receive::recognition;
use webhooks_sign::scheme::Scheme;

/// The name that stands for any scheme.
pub(crate) const AUTO: &str = "auto";

/// A scheme; `None` is any.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SchemeChoice(pub(crate) Option<&'static Scheme>);

/// Reads the name of a scheme.
pub(crate) fn named() -> impl TypedValueParser<Value = &'static Scheme> {
    PossibleValuesParser::new(names()).try_map(|name| find(&name).ok_or("there is no such scheme"))
}

/// Reads the name of a scheme, or `auto`.
pub(crate) fn named_or_auto() -> impl TypedValueParser<Value = SchemeChoice> {
    let names = std::iter::once(AUTO).chain(names());
    PossibleValuesParser::new(names).map(|name| SchemeChoice(find(&name)))
}

fn names() -> impl Iterator<Item = &'static str> {
    recognition::schemes().map(Scheme::name)
}

fn find(name: &str) -> Option<&'static Scheme> {
    recognition::schemes().find(|scheme| scheme.name() == name)
}
