//! The probe counts what it read and refuses to invent the rest. No test looks at a speed.

use std::time::Duration;

use super::*;

fn quick() -> ProbeConfig {
    ProbeConfig {
        readers: vec![ReaderKind::Auto, ReaderKind::Pread],
        request_bytes: vec![PAGE, 256 << 10],
        depths: vec![1, 4],
        cell_duration: Duration::from_millis(5),
        scratch_bytes: 4 << 20,
        ..ProbeConfig::default()
    }
}

#[test]
fn a_folder_is_measured_in_every_combination_and_left_clean() {
    let folder = tempfile::tempdir().unwrap();
    let report = measure(folder.path(), &quick()).unwrap();
    assert_eq!((report.cells.len(), report.file_bytes), (16, 4 << 20));
    for cell in &report.cells {
        match &cell.result {
            Ok(reached) => {
                assert!(reached.requests >= cell.depth as u64);
                assert_eq!(reached.bytes, reached.requests * cell.request_bytes as u64);
                assert!(reached.bytes_per_s() > 0.0);
            }
            Err(reason) => assert!(reason.contains("direct"), "{reason}"),
        }
    }
    assert_eq!(report.best(Pattern::Random).is_some(), report.cells[0].result.is_ok());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_sparse_file_is_not_measured() {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(8 << 20).unwrap();
    let report = measure(file.path(), &quick()).unwrap();
    assert!(report.cells.iter().all(|cell| cell.result.is_err()));
    assert_eq!(report.best(Pattern::Sequential), None);
}

#[cfg(target_os = "linux")]
#[test]
fn memory_is_not_measured_as_if_it_were_a_disk() {
    let folder = match tempfile::tempdir_in("/dev/shm") {
        Ok(folder) => folder,
        Err(error) => return crate::required::skip_without("tmpfs", error),
    };
    let report = measure(folder.path(), &quick()).unwrap();
    let reason = report.cells[0].result.clone().unwrap_err();
    assert!(reason.contains("no direct") && reason.contains("tmpfs"), "{reason}");
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    let missing = measure(Path::new("/nonexistent/model.gguf"), &quick()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/model.gguf"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let greedy = ProbeConfig { scratch_bytes: 1 << 60, ..quick() };
    let error = measure(folder.path(), &greedy).unwrap_err();
    assert!(matches!(error, ProbeError::NoRoom { .. }), "{error}");
}

#[test]
fn requests_larger_than_the_file_have_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let config = ProbeConfig { request_bytes: vec![8 << 20], ..quick() };
    let report = measure(folder.path(), &config).unwrap();
    assert!(report.cells.iter().all(|cell| cell.result.is_err()));
}

#[test]
fn places_are_whole_requests_inside_the_file() {
    let mut places = Places { random: SplitMix64(3), next: 0 };
    let (file, request) = (10 * 4096 + 5, 3 * 4096);
    let offsets: Vec<u64> = (0..5).map(|_| places.offset(Pattern::Sequential, file, request)).collect();
    assert_eq!(offsets, [0, 12288, 24576, 0, 12288]);
    for _ in 0..100 {
        let offset = places.offset(Pattern::Random, file, request);
        assert!(offset.is_multiple_of(request) && offset + request <= file);
    }
}
