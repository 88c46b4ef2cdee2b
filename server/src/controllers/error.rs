//! What can go wrong in a reconcile, and the questions controllers ask about it.

/// Why a reconcile did not finish; it is tried again after a while.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused, or could not be reached.
    #[error("{}", message(.0))]
    Api(#[from] kube::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The server's message alone, as upstream prints errors.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl Error {
    /// An error with a text of our own.
    pub fn other(text: impl Into<String>) -> Self {
        Error::Other(text.into())
    }

    fn reason(&self) -> Option<(&str, u16)> {
        match self {
            Error::Api(kube::Error::Api(status)) => Some((status.reason.as_str(), status.code)),
            _ => None,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason().is_some_and(|(_, code)| code == 404)
    }

    /// An object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.reason().is_some_and(|(reason, _)| reason == "AlreadyExists")
    }

    /// The object has changed since it was read, or is not the one meant.
    pub fn is_conflict(&self) -> bool {
        self.reason().is_some_and(|(reason, code)| code == 409 && reason != "AlreadyExists")
    }

    /// The request is not allowed.
    pub fn is_forbidden(&self) -> bool {
        self.reason().is_some_and(|(_, code)| code == 403)
    }

    /// The object would be invalid.
    pub fn is_invalid(&self) -> bool {
        self.reason().is_some_and(|(_, code)| code == 422)
    }

    /// Nothing can be created because the namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        match self {
            Error::Api(kube::Error::Api(status)) => {
                status.details.as_ref().is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
            }
            _ => false,
        }
    }

    /// Nobody can tell whether the write happened: no answer, or a time-out. (Refusals are certain, and so are 429 and 503, sent before anything is tried.)
    pub fn is_unknown_outcome(&self) -> bool {
        match self {
            Error::Api(kube::Error::Api(status)) => matches!(status.code, 500 | 502 | 504),
            Error::Api(kube::Error::BuildRequest(_)) | Error::Other(_) => false,
            Error::Api(_) => true,
        }
    }
}

/// `Ok(None)` for an object that is not there.
pub fn found<T>(result: Result<T, kube::Error>) -> Result<Option<T>, Error> {
    match result.map_err(Error::from) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// One error for many; upstream joins aggregated errors like this.
pub fn aggregate(errors: Vec<Error>) -> Result<(), Error> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.into_iter().next().unwrap_or_else(|| Error::other(""))),
        _ => Err(Error::Other(format!("[{}]", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))),
    }
}
