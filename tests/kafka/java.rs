//! The Java client's own partitioner, asked for what it would choose.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use millpond_testkit::broker::fetch_kafka;

const PROGRAM: &str = r#"
import java.nio.file.*;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partitions {
    public static void main(String[] arguments) throws Exception {
        int count = Integer.parseInt(arguments[1]);
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            byte[] key = HexFormat.of().parseHex(line.substring(1));
            System.out.println(BuiltInPartitioner.partitionForKey(key, count));
        }
    }
}
"#;

/// The partitions to which the Java client sends these keys.
pub(crate) fn partitions(keys: &[Vec<u8>], count: u32) -> Vec<i32> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (program, input) = (directory.path().join("Partitions.java"), directory.path().join("keys"));
    fs::write(&program, PROGRAM).expect("a program");
    let lines = keys.iter().fold(String::new(), |mut text, key| {
        // A mark, so that the line of an empty key is no empty line.
        text.push('x');
        key.iter().for_each(|byte| write!(text, "{byte:02x}").expect("memory"));
        text.push('\n');
        text
    });
    fs::write(&input, lines).expect("keys");
    let jars = fetch_kafka().expect("Kafka").join("libs").join("*");
    let mut java = Command::new("java");
    java.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp"]).arg(jars);
    let output = java.arg(&program).arg(&input).arg(count.to_string()).output().expect("Java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).expect("numbers");
    let partitions: Vec<i32> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    assert_eq!(partitions.len(), keys.len());
    partitions
}
