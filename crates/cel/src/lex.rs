//! From text to words.

use crate::problem::Problem;

/// A word of an expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// A name, keywords among them.
    Name(String),
    /// A name between backticks, which only a field can have.
    Quoted(String),
    /// An integer.
    Int(u64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    /// The end.
    End,
}

/// Longer signs first.
const SIGNS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")",
    "[", "]", "{", "}", "=", "|",
];

/// The words of a text, each with where it stands.
pub fn words(text: &[char]) -> Result<Vec<(Token, u32)>, Problem> {
    let mut lexer = Lexer { text, at: 0 };
    let mut words = Vec::new();
    loop {
        lexer.skip();
        let at = u32::try_from(lexer.at).unwrap_or(u32::MAX);
        let token = lexer.token()?;
        let end = token == Token::End;
        words.push((token, at));
        if end {
            return Ok(words);
        }
    }
}

struct Lexer<'a> {
    text: &'a [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn skip(&mut self) {
        loop {
            match self.peek(0) {
                Some(' ' | '\t' | '\n' | '\r' | '\u{c}') => self.at += 1,
                Some('/') if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|next| next != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn fail<T>(&self, at: usize, why: impl Into<String>) -> Result<T, Problem> {
        Err(Problem::new(u32::try_from(at).unwrap_or(u32::MAX), format!("Syntax error: {}", why.into())))
    }

    fn token(&mut self) -> Result<Token, Problem> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        if first.is_ascii_digit() || (first == '.' && self.peek(1).is_some_and(|next| next.is_ascii_digit()))
        {
            return self.number();
        }
        if let Some((raw, bytes, length)) = self.prefix() {
            self.at += length;
            return self.string(raw, bytes);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let start = self.at;
            while self.peek(0).is_some_and(|next| next.is_ascii_alphanumeric() || next == '_') {
                self.at += 1;
            }
            return Ok(Token::Name(self.text[start..self.at].iter().collect()));
        }
        if first == '`' {
            let start = self.at + 1;
            let end = self.text[start..].iter().position(|next| *next == '`');
            let Some(end) = end else { return self.fail(self.at, "token recognition error at: '`'") };
            self.at = start + end + 1;
            return Ok(Token::Quoted(self.text[start..start + end].iter().collect()));
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(ahead, wanted)| self.peek(ahead) == Some(wanted)) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        self.fail(self.at, format!("token recognition error at: '{first}'"))
    }

    /// Whether a string begins here: raw, bytes, and how many characters stand before its quote.
    fn prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes) = (false, false);
        for length in 0..3 {
            match self.peek(length)? {
                '"' | '\'' => return Some((raw, bytes, length)),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn number(&mut self) -> Result<Token, Problem> {
        let start = self.at;
        if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.at += 2;
            let digits = self.run(|next| next.is_ascii_hexdigit());
            return self.whole(start, u64::from_str_radix(&digits, 16).ok());
        }
        let mut text = self.run(|next| next.is_ascii_digit());
        let mut double = false;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|next| next.is_ascii_digit()) {
            double = true;
            self.at += 1;
            text.push('.');
            text += &self.run(|next| next.is_ascii_digit());
        }
        let signed = usize::from(matches!(self.peek(1), Some('+' | '-')));
        if matches!(self.peek(0), Some('e' | 'E'))
            && self.peek(1 + signed).is_some_and(|next| next.is_ascii_digit())
        {
            double = true;
            text.extend(self.text[self.at..=self.at + signed].iter());
            self.at += 1 + signed;
            text += &self.run(|next| next.is_ascii_digit());
        }
        if double {
            return match format!("0{text}").parse() {
                Ok(number) => Ok(Token::Double(number)),
                Err(_) => self.fail(start, "invalid double literal"),
            };
        }
        self.whole(start, text.parse().ok())
    }

    fn whole(&mut self, start: usize, number: Option<u64>) -> Result<Token, Problem> {
        let unsigned = matches!(self.peek(0), Some('u' | 'U'));
        self.at += usize::from(unsigned);
        match number {
            Some(number) if unsigned => Ok(Token::Uint(number)),
            // 2^63 is good after a minus.
            Some(number) if number <= 1 << 63 => Ok(Token::Int(number)),
            _ if unsigned => self.fail(start, "invalid uint literal"),
            _ => self.fail(start, "invalid int literal"),
        }
    }

    fn run(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(&wanted) {
            self.at += 1;
        }
        self.text[start..self.at].iter().collect()
    }

    fn string(&mut self, raw: bool, bytes: bool) -> Result<Token, Problem> {
        let start = self.at;
        let Some(quote) = self.peek(0) else { return Ok(Token::End) };
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        let (mut text, mut octets) = (String::new(), Vec::new());
        loop {
            let Some(next) = self.peek(0) else {
                return self.fail(start, format!("token recognition error at: '{quote}'"));
            };
            let ends =
                next == quote && (!triple || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote)));
            if ends {
                self.at += if triple { 3 } else { 1 };
                return Ok(if bytes { Token::Bytes(octets) } else { Token::Text(text) });
            }
            if !triple && matches!(next, '\n' | '\r') {
                return self.fail(start, format!("token recognition error at: '{quote}'"));
            }
            self.at += 1;
            let (read, octet) = if next == '\\' && !raw { self.escape()? } else { (next, None) };
            match octet {
                Some(octet) if bytes => octets.push(octet),
                _ if bytes => octets.extend_from_slice(read.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => text.push(read),
            }
        }
    }

    /// What stands after a backslash; of an octet, the octet too.
    fn escape(&mut self) -> Result<(char, Option<u8>), Problem> {
        let start = self.at;
        let Some(kind) = self.peek(0) else { return self.fail(start, "unterminated escape") };
        self.at += 1;
        let plain = match kind {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' | '?' => kind,
            'x' | 'X' => return self.code(start, 2, 16, true),
            'u' => return self.code(start, 4, 16, false),
            'U' => return self.code(start, 8, 16, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(start, 3, 8, true);
            }
            _ => return self.fail(start, format!("invalid escape: \\{kind}")),
        };
        Ok((plain, None))
    }

    fn code(
        &mut self,
        start: usize,
        digits: usize,
        base: u32,
        octet: bool,
    ) -> Result<(char, Option<u8>), Problem> {
        let end = (self.at + digits).min(self.text.len());
        let written: String = self.text[self.at..end].iter().collect();
        self.at = end;
        let whole = written.chars().all(|digit| digit.is_digit(base)) && written.len() == digits;
        let code = u32::from_str_radix(&written, base).ok().filter(|_| whole);
        match code.and_then(|code| char::from_u32(code).map(|read| (code, read))) {
            Some((code, read)) => Ok((read, u8::try_from(code).ok().filter(|_| octet))),
            None => self.fail(start, "invalid escape"),
        }
    }
}
