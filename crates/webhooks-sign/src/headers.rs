//! Headers of a request: the trait by which the crate reads them, and its implementations.
//!
//! Slices and arrays of pairs and, with the feature `http`, `http::HeaderMap` implement [`Headers`].
//! [`from_fn`] adapts a closure.

use core::marker::PhantomData;

use crate::Error;

/// A collection of HTTP headers that returns every value of a name.
///
/// Return all values, also if a header should be there once: the crate refuses requests that repeat
/// one, and can only do so if it sees them.
///
/// It is implemented for slices and arrays of pairs and, with the feature `http`, for
/// `http::HeaderMap`. For anything else, [`from_fn`] adapts a closure.
pub trait Headers {
    /// Returns every value of the header with this name, in order.
    ///
    /// Names that differ only in letter case are the same name (RFC 9110 §5.1).
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]>;
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Headers for [(N, V)] {
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.iter()
            .filter(move |(found, _)| is_same_name(found.as_ref(), name))
            .map(|(_, value)| value.as_ref())
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>, const LEN: usize> Headers for [(N, V); LEN] {
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.as_slice().values(name)
    }
}

impl<H: Headers + ?Sized> Headers for &H {
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        (**self).values(name)
    }
}

#[cfg(feature = "http")]
impl Headers for http::HeaderMap {
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.get_all(name).iter().map(http::HeaderValue::as_bytes)
    }
}

/// Headers that a closure looks up, made by [`from_fn`].
#[derive(Debug, Clone, Copy)]
pub struct FromFn<'v, F>(F, PhantomData<&'v [u8]>);

/// Returns [`Headers`] that are looked up by a closure: it takes a name and returns all values.
///
/// The name is as the scheme has it: in lower case, or as you gave it for a scheme of your own. The
/// values may be an `Option`, but then a repeated header is not detected.
///
/// # Example
/// ```
/// use webhooks_sign::{Headers, from_fn};
///
/// let headers = from_fn(|name: &str| (name == "webhook-id").then_some(&b"msg_1"[..]));
/// assert_eq!(headers.values("webhook-id").next(), Some(&b"msg_1"[..]));
/// ```
pub fn from_fn<'v, F, I>(values: F) -> FromFn<'v, F>
where
    F: Fn(&str) -> I,
    I: IntoIterator<Item = &'v [u8]>,
{
    FromFn(values, PhantomData)
}

impl<'v, F, I> Headers for FromFn<'v, F>
where
    F: Fn(&str) -> I,
    I: IntoIterator<Item = &'v [u8]>,
{
    fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        (self.0)(name).into_iter().map(|value| -> &'h [u8] { value })
    }
}

/// Compares eight bytes at a time: most names are written as they are asked for.
#[inline]
fn is_same_name(found: &str, name: &str) -> bool {
    /// The bit in which an upper-case letter differs from its lower-case one, in each byte.
    const CASE: u64 = 0x2020_2020_2020_2020;
    if found.len() != name.len() {
        return false;
    }
    let (eights, rest) = found.as_bytes().as_chunks::<8>();
    let (expected, expected_rest) = name.as_bytes().as_chunks::<8>();
    let eights =
        eights.iter().zip(expected).map(|(a, b)| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b));
    let rest = rest.iter().zip(expected_rest).map(|(a, b)| u64::from(a ^ b));
    let difference = eights.chain(rest).fold(0, |all, difference| all | difference);
    difference == 0 || (difference & !CASE == 0 && is_same_in_lower_case(found, name))
}

/// Compares from the end: names of the same length often start alike.
#[inline(never)]
fn is_same_in_lower_case(found: &str, name: &str) -> bool {
    let mut pairs = found.bytes().rev().zip(name.bytes().rev());
    pairs.all(|(a, b)| a.eq_ignore_ascii_case(&b))
}

/// Returns the one value of the header with this name.
#[inline]
pub(crate) fn single<'h>(
    headers: &'h (impl Headers + ?Sized),
    header: &'static str,
) -> Result<&'h [u8], Error> {
    let mut values = headers.values(header);
    let value = values.next().ok_or(Error::MissingHeader { header })?;
    match values.next() {
        Some(_) => Err(Error::DuplicateHeader { header }),
        None => Ok(value),
    }
}
