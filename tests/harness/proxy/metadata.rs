//! Answers to Metadata that name no broker, as one that was just fenced may give.

/// Kafka's number for Metadata.
pub(super) const METADATA: i16 = 3;

/// The answer with its brokers left out and its topics left in, or `None` if it cannot be read.
///
/// `version` is that of the request: up to 8 lengths have a fixed size, from 9 on they are varints and every
/// structure ends with tagged fields.
pub(super) fn without_brokers(answer: &[u8], version: i16) -> Option<Vec<u8>> {
    let is_flexible = version >= 9;
    let mut at = Cursor { bytes: answer, next: 0 };
    at.skip(4 + 4)?; // length, correlation id
    if is_flexible {
        at.tags()?;
    }
    if version >= 3 {
        at.skip(4)?; // throttle time
    }
    let begin = at.next;
    let brokers = at.count(is_flexible)?;
    for _ in 0..brokers {
        at.skip(4)?; // node id
        at.text(is_flexible)?; // host
        at.skip(4)?; // port
        if version >= 1 {
            at.text(is_flexible)?; // rack
        }
        if is_flexible {
            at.tags()?;
        }
    }
    let none: &[u8] = if is_flexible { &[1] } else { &[0; 4] };
    let mut emptied = [&answer[..begin], none, &answer[at.next..]].concat();
    let length = i32::try_from(emptied.len() - 4).ok()?;
    emptied[..4].copy_from_slice(&length.to_be_bytes());
    Some(emptied)
}

struct Cursor<'b> {
    bytes: &'b [u8],
    next: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, count: usize) -> Option<()> {
        self.take(count).map(drop)
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.next.checked_add(count)?;
        let taken = self.bytes.get(self.next..end)?;
        self.next = end;
        Some(taken)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The length of an array; 0 for none.
    fn count(&mut self, is_flexible: bool) -> Option<usize> {
        if is_flexible {
            Some(self.varint()?.saturating_sub(1))
        } else {
            let count = i32::from_be_bytes(self.take(4)?.try_into().ok()?);
            Some(usize::try_from(count).unwrap_or(0))
        }
    }

    /// Passes a text that may be null.
    fn text(&mut self, is_flexible: bool) -> Option<()> {
        let length = if is_flexible {
            self.varint()?.saturating_sub(1)
        } else {
            let length = i16::from_be_bytes(self.take(2)?.try_into().ok()?);
            usize::try_from(length).unwrap_or(0)
        };
        self.skip(length)
    }

    /// Passes tagged fields.
    fn tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts the length in front.
    fn frame(body: &[&[u8]]) -> Vec<u8> {
        let body = body.concat();
        [&(body.len() as i32).to_be_bytes()[..], &body].concat()
    }

    #[test]
    fn brokers_go_and_all_behind_them_stays_whatever_the_version() {
        let (id, throttle, rest) = ([0, 0, 0, 7], [0, 0, 0, 0], b"cluster and topics");
        let one = [0, 0, 0, 1, 0, 4, b'h', b'o', b's', b't', 0, 0, 0x23, 0x84];
        let null_rack = [0xff, 0xff];

        // version 0: neither throttle time nor rack; version 8 has both
        let old = frame(&[&id, &[0, 0, 0, 1], &one, rest]);
        assert_eq!(without_brokers(&old, 0), Some(frame(&[&id, &[0; 4], rest])));
        let middle = frame(&[&id, &throttle, &[0, 0, 0, 2], &one, &null_rack, &one, &null_rack, rest]);
        assert_eq!(
            without_brokers(&middle, 8),
            Some(frame(&[&id, &throttle, &[0; 4], rest]))
        );

        // version 12: compact, with tagged fields in the header and in the broker
        let compact = [0, 0, 0, 1, 5, b'h', b'o', b's', b't', 0, 0, 0x23, 0x84, 2, b'r'];
        let tags = [1, 0, 2, 9, 9];
        let new = frame(&[&id, &[0], &throttle, &[2], &compact, &tags, rest]);
        assert_eq!(
            without_brokers(&new, 12),
            Some(frame(&[&id, &[0], &throttle, &[1], rest]))
        );
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        assert_eq!(without_brokers(&frame(&[&[0, 0, 0, 7, 0, 0]]), 12), None);
    }
}
