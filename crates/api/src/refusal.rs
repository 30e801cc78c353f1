//! Why a request is not done, as decisions say it. `http/status.rs` alone turns it into codes and bodies.

use std::fmt;

use model::Tree;
use model::kinds::{Fault, FaultReason};

/// A request that is not done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What sort of refusal.
    pub reason: Reason,
    /// What to tell the user.
    pub message: String,
    /// Which object or resource it is about.
    pub about: Box<About>,
    /// What in particular is wrong.
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    pub retry_after: Option<u32>,
    /// For an expired list: where to go on.
    pub continue_token: Option<String>,
    /// The `Status` of a program outside that refuses: its code and reason are told as they are.
    pub status: Option<Box<Tree>>,
}

/// The sorts of refusal; one for each thing that a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request makes no sense: mend it.
    BadRequest,
    /// Say who you are.
    Unauthorized,
    /// You may not, or policy does not let you.
    Forbidden,
    /// No such object, or no such path.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Somebody wrote first: read again, decide again.
    Conflict,
    /// The object breaks the rules of its kind: mend it.
    Invalid,
    /// That history is gone: list again.
    Expired,
    /// That verb is none of the resource's.
    MethodNotAllowed,
    /// No such form of answer.
    NotAcceptable,
    /// That form of body is not read.
    UnsupportedMediaType,
    /// Wait, then try again.
    TooManyRequests,
    /// Send less.
    TooLarge,
    /// It took too long: try again.
    Timeout,
    /// The server could not do it now: try again.
    ServiceUnavailable,
    /// The disk is full: try again when there is room.
    Full,
    /// A fault of ours.
    Internal,
}

/// What a refusal is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The API group.
    pub group: String,
    /// The plural of the resource.
    pub resource: String,
    /// The kind.
    pub kind: String,
    /// The object's name; empty for none.
    pub name: String,
    /// The object's uid; empty for none.
    pub uid: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The cause's reason, such as `FieldValueRequired`.
    pub reason: String,
    /// What is wrong.
    pub message: String,
    /// Where; empty for nowhere in particular.
    pub field: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl About {
    /// The same for another name.
    pub fn named(&self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self.clone() }
    }

    /// `pods` or `deployments.apps`, as messages name a resource.
    fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.resource.clone()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }
}

impl Refusal {
    /// A refusal that is about nothing in particular.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            about: Box::default(),
            causes: Vec::new(),
            retry_after: None,
            continue_token: None,
            status: None,
        }
    }

    /// The request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// A fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::Internal, format!("Internal error occurred: {}", message.into()))
    }

    /// No such object.
    pub fn not_found(about: &About) -> Self {
        Self::new(Reason::NotFound, format!("{} \"{}\" not found", about.qualified(), about.name))
            .about(about)
    }

    /// No such path.
    pub fn no_such_path() -> Self {
        Self::new(Reason::NotFound, "the server could not find the requested resource")
    }

    /// The name is taken.
    pub fn already_exists(about: &About) -> Self {
        let message = format!("{} \"{}\" already exists", about.qualified(), about.name);
        Self::new(Reason::AlreadyExists, message).about(about)
    }

    /// Somebody wrote first, or a precondition does not hold.
    pub fn conflict(about: &About, why: impl fmt::Display) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{}\": {why}", about.qualified(), about.name);
        Self::new(Reason::Conflict, message).about(about)
    }

    /// The object was changed since the writer read it.
    pub fn stale(about: &About) -> Self {
        Self::conflict(
            about,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// Policy does not let it happen.
    pub fn forbidden(about: &About, why: impl fmt::Display) -> Self {
        let message = match about.name.as_str() {
            "" => format!("{} is forbidden: {why}", about.qualified()),
            name => format!("{} \"{name}\" is forbidden: {why}", about.qualified()),
        };
        Self::new(Reason::Forbidden, message).about(about)
    }

    /// The object breaks the rules of its kind.
    pub fn invalid(about: &About, faults: &[Fault]) -> Self {
        let told: Vec<String> = faults.iter().map(tell).collect();
        let list = if let [one] = told.as_slice() { one.clone() } else { format!("[{}]", told.join(", ")) };
        let kind = if about.group.is_empty() {
            about.kind.clone()
        } else {
            format!("{}.{}", about.kind, about.group)
        };
        let mut refusal =
            Self::new(Reason::Invalid, format!("{kind} \"{}\" is invalid: {list}", about.name)).about(about);
        refusal.causes = faults.iter().map(cause).collect();
        refusal
    }

    /// One fault of one field.
    pub fn invalid_field(
        about: &About,
        field: &str,
        reason: FaultReason,
        message: impl Into<String>,
    ) -> Self {
        Self::invalid(about, &[Fault { field: field.to_owned(), reason, message: message.into() }])
    }

    /// The verb is none of the resource's.
    pub fn method_not_allowed() -> Self {
        Self::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
    }

    /// The same, about this.
    pub fn about(self, about: &About) -> Self {
        Self { about: Box::new(about.clone()), ..self }
    }

    /// The same, with one more cause.
    pub fn cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        self.causes.push(Cause { reason: reason.into(), message: message.into(), field: field.into() });
        self
    }

    /// The same, to be tried again after so many seconds.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

fn tell(fault: &Fault) -> String {
    if fault.field.is_empty() { fault.message.clone() } else { format!("{}: {}", fault.field, fault.message) }
}

fn cause(fault: &Fault) -> Cause {
    Cause {
        reason: fault.reason.as_str().to_owned(),
        message: fault.message.clone(),
        field: fault.field.clone(),
    }
}
