//! Headers that are missing, doubled, malformed or those of another scheme.

use http::{HeaderMap, HeaderValue};
use webhooks_receive::recognition;
use webhooks_sign::scheme::{Encoding, TimestampSource};

use super::{Search, keys};
use crate::diagnosis::finding::{Cause, Finding};
use crate::diagnosis::key_form::KeyForm;

impl Search<'_> {
    /// Explains that a header is missing.
    pub(super) fn missing(&mut self, header: &str) -> Finding {
        if let Some(finding) = self.other_schemes().or_else(|| self.header_names()) {
            return finding;
        }
        let others = recognition::schemes_of(&self.case.head.headers);
        let others: Vec<_> = others.iter().map(|scheme| scheme.name()).collect();
        let advice = if others.is_empty() {
            "has the sender a secret set, and does something on the way drop headers?".to_owned()
        } else {
            format!("the request has the headers of {}: is that the sender?", others.join(", "))
        };
        let text = format!("the header {header} is missing");
        Finding::new(Cause::MissingHeader, text, advice)
    }

    /// Tries the schemes whose headers the request has.
    pub(super) fn other_schemes(&mut self) -> Option<Finding> {
        for other in recognition::schemes_of(&self.case.head.headers) {
            if other.name() == self.scheme.name() {
                continue;
            }
            let fits = keys(other, self.case.secrets)
                .iter()
                .find(|(_, _, key)| self.fits(other, key, self.case.head, self.case.body))
                .map(|(_, form, _)| *form);
            self.note(format!("the scheme {}", other.name()), fits.is_some());
            if let Some(form) = fits {
                let key = match form {
                    KeyForm::AsIs => String::new(),
                    form => format!(", with the secret {}", form.describe()),
                };
                return Some(Finding::new(
                    Cause::OtherScheme,
                    format!(
                        "it is signed by the scheme {}, not {}{key}",
                        other.name(),
                        self.scheme.name()
                    ),
                    format!("verify with the scheme {}", other.name()),
                ));
            }
        }
        None
    }

    /// Tries headers whose names something on the way wrote otherwise, as CGI does.
    pub(super) fn header_names(&mut self) -> Option<Finding> {
        let plain = |name: &str| {
            let name = name.replace('_', "-");
            name.strip_prefix("http-").unwrap_or(&name).to_owned()
        };
        let mut head = self.case.head.clone();
        let renamed: HeaderMap = (self.case.head.headers.iter())
            .filter_map(|(name, value)| Some((plain(name.as_str()).parse().ok()?, value.clone())))
            .collect();
        if renamed == head.headers {
            return None;
        }
        head.headers = renamed;
        let fits = self.fits_plainly(&self.scheme, &head, self.case.body);
        self.note("headers with - in place of _", fits).then(|| {
            Finding::new(
                Cause::HeaderName,
                "the headers came under other names: with _, or with HTTP_ in front",
                "read the headers as they were sent, not the variables of CGI or WSGI",
            )
        })
    }

    /// Explains that a header is there more than once.
    pub(super) fn duplicate(&mut self, header: &str) -> Finding {
        let values: Vec<_> = self.case.head.headers.get_all(header).iter().cloned().collect();
        let fits = values.iter().position(|value| {
            let head = self.head_with(header, value.as_bytes());
            head.is_some_and(|head| self.fits_plainly(&self.scheme, &head, self.case.body))
        });
        let which =
            fits.map(|at| format!("; value {} alone would fit", at + 1)).unwrap_or_default();
        self.note("one of the values alone", fits.is_some());
        Finding::new(
            Cause::DuplicateHeader,
            format!("the header {header} is there {} times{which}", values.len()),
            "something on the way, such as a proxy, adds the header again",
        )
    }

    /// Explains a header that does not have its form.
    pub(super) fn malformed(&mut self, header: &str) -> Option<Finding> {
        if let Some(finding) = self.swapped_headers() {
            return Some(finding);
        }
        let value = String::from_utf8_lossy(self.value(header)).into_owned();
        let prefix = self.scheme.signature_prefix();
        let bare = value.trim_matches(|character: char| {
            character.is_whitespace() || matches!(character, '"' | '\'')
        });
        let behind = bare.rsplit_once(['=', ',']).map_or(bare, |(_, behind)| behind);
        let first = bare.split_once(['=', ',']).map_or(bare, |(_, behind)| behind);
        let values = [
            bare.to_owned(),
            bare.replace(", ", " "),
            format!("{prefix}{bare}"),
            format!("{prefix}{first}"),
            format!("{prefix}{behind}"),
        ];
        for value in values {
            let Some(head) = self.head_with(header, value.as_bytes()) else { continue };
            if self.fits_plainly(&self.scheme, &head, self.case.body) {
                return Some(
                    self.header_form(header, "the signature is right, and its header is not"),
                );
            }
            for encoding in [Encoding::Base64, Encoding::Base64Url, Encoding::Hex] {
                let scheme = self.scheme.customized().encoding(encoding);
                let Ok(scheme) = scheme.dangerous_joined_parts().build() else { continue };
                if self.fits_plainly(&scheme, &head, self.case.body) {
                    let text = format!("the signature is written in {encoding}");
                    return Some(self.header_form(header, &text));
                }
            }
        }
        self.note("the signature in other forms", false);
        self.algorithms().or_else(|| self.other_schemes())
    }

    pub(super) fn header_form(&mut self, header: &str, text: &str) -> Finding {
        self.note("the signature in other forms", true);
        let expected = self.scheme.describe();
        Finding::new(
            Cause::HeaderForm,
            format!("{text}: the header {header} does not have the form of the scheme"),
            format!("the scheme has {expected}"),
        )
    }

    /// Tries the headers of id and timestamp, each with the value of the other.
    pub(super) fn swapped_headers(&mut self) -> Option<Finding> {
        let id = self.scheme.id_header()?;
        let TimestampSource::Header(time, _) = self.scheme.timestamp_source()? else { return None };
        let mut head = self.head_with(id, self.value(time))?;
        head.headers.insert(time, HeaderValue::from_bytes(self.value(id)).ok()?);
        let fits = self.fits_plainly(&self.scheme, &head, self.case.body);
        self.note(format!("{id} and {time} swapped"), fits).then(|| {
            Finding::new(
                Cause::IdAndTimestampSwapped,
                format!("{id} has the timestamp and {time} has the id"),
                "swap the two headers",
            )
        })
    }
}
