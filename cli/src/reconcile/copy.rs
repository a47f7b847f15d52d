//! Rows in Postgres' binary COPY format: what is read from Kafka goes into temporary tables this way.

use uuid::Uuid;

/// What a stream begins with: the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Rows, encoded one behind the other.
#[derive(Debug, Default)]
pub struct Rows(Vec<u8>);

impl Rows {
    /// The bytes before the first row.
    pub fn header() -> Vec<u8> {
        HEADER.to_vec()
    }

    /// The bytes behind the last row.
    pub fn trailer() -> Vec<u8> {
        TRAILER.to_vec()
    }

    /// Begins a row of so many columns.
    pub fn row(&mut self, columns: i16) -> &mut Self {
        self.0.extend_from_slice(&columns.to_be_bytes());
        self
    }

    /// An `int`.
    pub fn int(&mut self, value: i32) -> &mut Self {
        self.column(Some(&value.to_be_bytes()))
    }

    /// A `boolean`.
    pub fn boolean(&mut self, value: bool) -> &mut Self {
        self.column(Some(&[u8::from(value)]))
    }

    /// A `bigint`, or null.
    pub fn bigint(&mut self, value: Option<i64>) -> &mut Self {
        self.column(value.map(i64::to_be_bytes).as_ref().map(|bytes| &bytes[..]))
    }

    /// An `int`, or null.
    pub fn int_or_null(&mut self, value: Option<i32>) -> &mut Self {
        self.column(value.map(i32::to_be_bytes).as_ref().map(|bytes| &bytes[..]))
    }

    /// A `uuid`, or null.
    pub fn uuid(&mut self, value: Option<Uuid>) -> &mut Self {
        self.column(value.as_ref().map(|id| &id.as_bytes()[..]))
    }

    /// A `bytea`, or null.
    pub fn bytes(&mut self, value: Option<&[u8]>) -> &mut Self {
        self.column(value)
    }

    /// How many bytes there are.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes so far; what follows begins anew.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    fn column(&mut self, value: Option<&[u8]>) -> &mut Self {
        match value {
            None => self.0.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(bytes) => {
                let length = i32::try_from(bytes.len()).expect("ids and digests are short");
                self.0.extend_from_slice(&length.to_be_bytes());
                self.0.extend_from_slice(bytes);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_columns_with_their_lengths() {
        let mut rows = Rows::default();
        rows.row(3).int(7).bytes(None).bytes(Some(b"ab"));
        let expected = [
            &3_i16.to_be_bytes()[..],
            &4_i32.to_be_bytes(),
            &7_i32.to_be_bytes(),
            &(-1_i32).to_be_bytes(),
            &2_i32.to_be_bytes(),
            b"ab",
        ];
        assert_eq!(rows.take(), expected.concat());
        assert!(rows.is_empty());
    }
}
