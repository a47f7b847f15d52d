//! Kafka headers as one column: ordered, repeatable, values that are bytes or null.
//!
//! The stored form is, for each header: the name's length in two bytes, the name in UTF-8, the value's
//! length in four bytes (all ones for null), the value; big endian. `outbox_headers()` shows it in SQL.

/// The headers of a record, in their order. A name may stand more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Option<Vec<u8>>)>);

/// Why stored headers cannot be read, or given ones not be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadersError {
    /// The column ends inside a header, or says a length that it does not have.
    #[error("stored headers end inside the header at byte {at}")]
    Truncated {
        /// Where that header begins.
        at: usize,
    },
    /// A header's name is not UTF-8.
    #[error("name of the stored header at byte {at} is not utf-8")]
    Name {
        /// Where that header begins.
        at: usize,
    },
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a header behind the others. Names over 65,535 bytes are cut: Kafka's own limit is lower.
    pub fn push(&mut self, name: impl Into<String>, value: Option<impl Into<Vec<u8>>>) {
        self.0.push((name.into(), value.map(Into::into)));
    }

    /// Name and value of each header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// The value of the last header of that name, as Kafka's `lastHeader` gives it.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .rev()
            .find(|(n, _)| n == name)
            .and_then(|(_, value)| value.as_deref())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stored form; none at all is stored as null.
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let size = self
            .0
            .iter()
            .map(|(n, v)| 6 + n.len() + v.as_ref().map_or(0, Vec::len))
            .sum();
        let mut out = Vec::with_capacity(size);
        for (name, value) in &self.0 {
            let end = name.floor_char_boundary(usize::from(u16::MAX));
            out.extend_from_slice(&(end as u16).to_be_bytes());
            out.extend_from_slice(&name.as_bytes()[..end]);
            match value {
                None => out.extend_from_slice(&u32::MAX.to_be_bytes()),
                Some(value) => {
                    out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                    out.extend_from_slice(value);
                }
            }
        }
        Some(out)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// If the bytes are not what [`Headers::encode`] writes.
    pub fn decode(mut stored: &[u8]) -> Result<Self, HeadersError> {
        let total = stored.len();
        let mut headers = Self::new();
        while !stored.is_empty() {
            let at = total - stored.len();
            let truncated = HeadersError::Truncated { at };
            let (len, rest) = stored.split_first_chunk::<2>().ok_or(truncated.clone())?;
            let (name, rest) = rest
                .split_at_checked(usize::from(u16::from_be_bytes(*len)))
                .ok_or(truncated.clone())?;
            let name = std::str::from_utf8(name).map_err(|_| HeadersError::Name { at })?;
            let (len, rest) = rest.split_first_chunk::<4>().ok_or(truncated.clone())?;
            let (value, rest) = match u32::from_be_bytes(*len) {
                u32::MAX => (None, rest),
                len => {
                    let (value, rest) = rest.split_at_checked(len as usize).ok_or(truncated)?;
                    (Some(value.to_vec()), rest)
                }
            };
            headers.0.push((name.to_owned(), value));
            stored = rest;
        }
        Ok(headers)
    }
}

impl FromIterator<(String, Option<Vec<u8>>)> for Headers {
    fn from_iter<T: IntoIterator<Item = (String, Option<Vec<u8>>)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(headers: Vec<(String, Option<Vec<u8>>)>) {
            let headers: Headers = headers.into_iter().collect();
            let stored = headers.encode().unwrap_or_default();
            prop_assert_eq!(Headers::decode(&stored).unwrap(), headers);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = Headers::decode(&bytes);
        }
    }

    #[test]
    fn a_cut_column_is_named_as_such() {
        let mut headers = Headers::new();
        headers.push("a", Some("1"));
        headers.push("b", Some("22"));
        let stored = headers.encode().unwrap();
        assert_eq!(
            Headers::decode(&stored[..stored.len() - 1]),
            Err(HeadersError::Truncated { at: 8 })
        );
    }
}
