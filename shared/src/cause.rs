//! What an error says of its causes, for logs and readiness.

use std::error::Error;

/// An error and its causes on one line. A cause that the text before it ends with already is not repeated:
/// some libraries name it in their own message too.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("ask the server")]
        Plain(#[source] io::Error),
        #[error("ask the server: {0}")]
        Repeating(#[source] io::Error),
    }

    #[test]
    fn a_cause_is_named_once() {
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        assert_eq!(chain(&Outer::Plain(refused())), "ask the server: refused");
        assert_eq!(chain(&Outer::Repeating(refused())), "ask the server: refused");
    }
}
