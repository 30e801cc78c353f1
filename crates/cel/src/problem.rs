//! What is wrong with the text of an expression, told as clients know it.

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The index of the character at which it is.
    pub at: u32,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// Something wrong.
    pub fn new(at: u32, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// Why a text is no expression that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Faulty {
    /// Each problem with the line at which it is, as upstream shows it.
    pub text: String,
}

/// The longest line that is shown below a problem, in characters: as much as a terminal's window can hold.
const LINE_LEN_MAX: usize = 1000;

impl Faulty {
    /// Shows problems in the text in which they are.
    pub fn of(source: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at);
        problems.dedup();
        let shown: Vec<String> = problems.iter().map(|problem| show(source, problem)).collect();
        Self { text: shown.join("\n") }
    }
}

fn show(source: &str, problem: &Problem) -> String {
    let (mut line, mut column) = (1, 0);
    for read in source.chars().take(problem.at as usize) {
        (line, column) = if read == '\n' { (line + 1, 0) } else { (line, column + 1) };
    }
    let text: String = source.lines().nth(line - 1).unwrap_or_default().chars().take(LINE_LEN_MAX).collect();
    let message = &problem.message;
    if text.is_empty() || column > LINE_LEN_MAX {
        return format!("ERROR: <input>:{line}:{}: {message}", column + 1);
    }
    format!("ERROR: <input>:{line}:{}: {message}\n | {text}\n | {}^", column + 1, ".".repeat(column))
}
