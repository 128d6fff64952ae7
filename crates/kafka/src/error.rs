//! What librdkafka's errors mean for the caller: retry, or correct the configuration.

use crate::client::HasCode;
use millpond_core::{Error, ErrorKind};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

/// What the caller should do about a code of librdkafka or of a broker.
pub(crate) fn kind_of(code: Option<Code>) -> ErrorKind {
    match code {
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::Authentication
            | Code::SSL
            | Code::InvalidTopic
            | Code::UnknownTopic
            | Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidTransactionTimeout
            | Code::InvalidConfig
            | Code::InvalidReplicationFactor
            | Code::PolicyViolation
            | Code::UnsupportedFeature
            | Code::InvalidArgument,
        ) => ErrorKind::Configuration,
        _ => ErrorKind::Retry,
    }
}

/// An error of a request, with what was tried.
pub(crate) fn failed(
    what: impl Into<String>,
    error: impl HasCode + std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(kind_of(error.code()), what).with_source(error)
}

/// An error of a client that could not be made: a wrong setting.
pub(crate) fn refused_setting(of: &str, error: KafkaError) -> Error {
    let hint = match &error {
        KafkaError::ClientConfig(_, why, ..) | KafkaError::ClientCreation(why) if needs_tls(why) => {
            " (build with the feature `tls` for encryption, SASL SCRAM and OAUTHBEARER)"
        }
        _ => "",
    };
    Error::new(ErrorKind::Configuration, format!("{of}: the settings of the Kafka client are refused{hint}"))
        .with_source(error)
}

fn needs_tls(why: &str) -> bool {
    !cfg!(feature = "tls")
        && ["not available at build time", "not built with", "requires OpenSSL", "No provider for SASL"]
            .iter()
            .any(|part| why.contains(part))
}
