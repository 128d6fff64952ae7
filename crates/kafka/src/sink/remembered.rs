//! What a sink wants to know at its next start (docs/formats.md, "What a Kafka sink remembers"): the cluster, and all
//! transactional ids that it ever used there, since one that was given up may still have a live producer (hard case H4).

use millpond_core::bytes::{Reader, Writer};
use millpond_core::{Error, ErrorKind, Result};

const VERSION: u8 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    cluster_id: String,
    transactional_ids: Vec<String>,
}

impl Remembered {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.u8(VERSION);
        out.text(&self.cluster_id);
        out.list(&self.transactional_ids, |out, id| out.text(id));
        out.into_bytes()
    }

    /// Reads what [`encode`](Self::encode) wrote; nothing at a first start.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Remembered::default());
        }
        let mut reader = Reader::new("what a Kafka sink remembers", bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(reader.broken(&format!("version {version}, this program reads version {VERSION}")));
        }
        let remembered = Remembered { cluster_id: reader.text()?, transactional_ids: reader.list(Reader::text)? };
        reader.end()?;
        Ok(remembered)
    }

    /// Refuses another cluster behind the old names.
    pub(crate) fn check(&self, cluster_id: &str, brokers: &str) -> Result<()> {
        if self.cluster_id.is_empty() || self.cluster_id == cluster_id {
            return Ok(());
        }
        let old = &self.cluster_id;
        Err(Error::new(
            ErrorKind::Restore,
            format!(
                "the Kafka cluster at {brokers} has the id {cluster_id}, but this sink has committed to cluster {old}: give \
                 the address of that cluster, or start with a new directory"
            ),
        ))
    }

    pub(crate) fn add(&mut self, cluster_id: &str, transactional_id: &str) {
        self.cluster_id = cluster_id.to_owned();
        if !self.transactional_ids.iter().any(|id| id == transactional_id) {
            self.transactional_ids.push(transactional_id.to_owned());
        }
    }

    /// All ids used so far.
    pub(crate) fn transactional_ids(&self) -> &[String] {
        &self.transactional_ids
    }

    /// The cluster.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// The ids used before, but for the present one.
    pub(crate) fn other_ids(&self, present: &str) -> Vec<String> {
        self.transactional_ids.iter().filter(|id| *id != present).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_written() {
        let mut remembered = Remembered::default();
        remembered.add("cluster", "first");
        remembered.add("cluster", "second");
        remembered.add("cluster", "first");
        let bytes = remembered.encode();
        assert_eq!(Remembered::decode(&bytes).ok().as_ref(), Some(&remembered));
        assert_eq!(remembered.other_ids("second"), ["first"]);
        for length in 1..bytes.len() {
            assert!(Remembered::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn h4_another_cluster_is_refused() {
        let mut remembered = Remembered::default();
        assert!(remembered.check("a", "b:1").is_ok());
        remembered.add("a", "id");
        assert!(remembered.check("a", "b:1").is_ok());
        let error = remembered.check("c", "b:1").expect_err("another cluster");
        assert_eq!(error.kind(), ErrorKind::Restore);
        assert!(error.to_string().contains("cluster a"), "{error}");
    }
}
