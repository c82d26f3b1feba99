//! The CPU baseline that GMP is built for.

use crate::error::MpcError;

/// Checks that this CPU has the instructions that the built-in GMP uses without asking: MULX (BMI2) and ADX, that is
/// Intel Broadwell, AMD Zen, and later. Call it first thing at start: without them the process would die of an illegal
/// instruction at its first long multiplication.
///
/// # Errors
/// [`MpcError::Cpu`] says which instruction sets are missing.
pub fn check_baseline() -> Result<(), MpcError> {
    #[cfg(target_arch = "x86_64")]
    let (bmi2, adx) = (std::arch::is_x86_feature_detected!("bmi2"), std::arch::is_x86_feature_detected!("adx"));
    #[cfg(not(target_arch = "x86_64"))]
    let (bmi2, adx) = (false, false);
    judge(bmi2, adx)
}

fn judge(bmi2: bool, adx: bool) -> Result<(), MpcError> {
    let missing = match (bmi2, adx) {
        (true, true) => return Ok(()),
        (false, true) => "BMI2 (MULX)",
        (true, false) => "ADX",
        (false, false) => "BMI2 (MULX) and ADX",
    };
    Err(MpcError::Cpu { missing })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_cpu_without_the_baseline_is_told_what_is_missing() {
        assert!(judge(true, true).is_ok());
        let error = judge(false, true).expect_err("no MULX").to_string();
        assert!(error.contains("BMI2") && !error.contains("and ADX") && error.contains("Broadwell"), "{error}");
        assert!(judge(true, false).expect_err("no ADX").to_string().contains("ADX"));
    }

    #[test]
    fn the_machine_that_runs_these_tests_has_the_baseline() {
        assert!(check_baseline().is_ok());
    }
}
