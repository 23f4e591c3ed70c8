//! Which job of an array a process is, by what its scheduler says in the environment.

use crate::error::{Error, Result};

/// A scheduler that numbers the jobs of an array.
struct Scheduler {
    name: &'static str,
    /// The variable with a job's number.
    index: &'static str,
    /// The variable with the array's largest number, where each job knows it.
    largest: Option<&'static str>,
    /// The number that the first job has here. Where it is 1, other words and 0 stand for "no array": LSF sets 0 for
    /// every other job, Grid Engine the word "undefined".
    first: u32,
    /// What is said to the scheduler, before and after the numbers.
    submit: [&'static str; 2],
}

impl Scheduler {
    const fn new(name: &'static str, index: &'static str, first: u32, submit: [&'static str; 2]) -> Self {
        Self { name, index, largest: None, first, submit }
    }

    const fn with_largest(self, name: &'static str) -> Self {
        Self { largest: Some(name), ..self }
    }

    /// How an array of this many jobs is asked for.
    fn request(&self, jobs: u32) -> String {
        let [before, after] = self.submit;
        let first = u64::from(self.first);
        format!("{}: {before}{first}-{}{after}", self.name, first + u64::from(jobs) - 1)
    }

    /// The place of this process in an array of `jobs`, from 0 on; `None` if it is in no array of this scheduler.
    ///
    /// # Errors
    /// Why there is no such place, and what to do.
    fn place(&self, jobs: u32, environment: impl Fn(&str) -> Option<String>) -> Result<Option<u32>, String> {
        let Some(value) = environment(self.index) else { return Ok(None) };
        let number: Option<u32> = value.trim().parse().ok();
        if self.first > 0 && number.is_none_or(|number| number < self.first) {
            return Ok(None);
        }
        let last = jobs - 1;
        let advice = format!(
            "the parts are 0 to {last}; number the array's jobs from {} on ({})",
            self.first,
            self.request(jobs)
        );
        // Each job knows the largest number, so that none begins an array that cannot be finished.
        if let Some((name, largest)) = self.largest.and_then(|name| Some((name, environment(name)?)))
            && largest.trim().parse().is_ok_and(|largest: u64| largest > u64::from(self.first) + u64::from(last))
        {
            let given = "or give the number of its jobs as N";
            return Err(format!("the array's largest number is {largest} ({name}), and {advice}, {given}"));
        }
        let place = number.and_then(|number| number.checked_sub(self.first)).filter(|place| *place < jobs);
        place.map(Some).ok_or_else(|| format!("{} is {value:?}, and {advice}", self.index))
    }
}

/// The schedulers that are known.
const SCHEDULERS: [Scheduler; 6] = [
    Scheduler::new("Slurm", "SLURM_ARRAY_TASK_ID", 0, ["--array=", ""]).with_largest("SLURM_ARRAY_TASK_MAX"),
    Scheduler::new("Kubernetes", "JOB_COMPLETION_INDEX", 0, ["completionMode: Indexed, for the indexes ", ""]),
    Scheduler::new("PBS", "PBS_ARRAY_INDEX", 0, ["-J ", ""]),
    Scheduler::new("Torque", "PBS_ARRAYID", 0, ["-t ", ""]),
    Scheduler::new("LSF", "LSB_JOBINDEX", 1, ["-J \"name[", "]\""]).with_largest("LSB_JOBINDEX_END"),
    Scheduler::new("Grid Engine", "SGE_TASK_ID", 1, ["-t ", ""]).with_largest("SGE_TASK_LAST"),
];

/// The job that a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// The place in the array, from 0 on.
    pub(super) place: u32,
    /// The environment variable that says so.
    pub(super) variable: &'static str,
}

/// The job that this process is, in an array of `jobs`; `environment` gives the value of a variable.
///
/// # Errors
/// [`Error::Refused`] if the environment names no job, different ones, or one of a larger array.
pub(super) fn job(jobs: u32, environment: impl Fn(&str) -> Option<String>) -> Result<Job> {
    let refused = |why: String| Error::Refused(format!("--partition auto/{jobs}: {why}"));
    let mut found: Option<Job> = None;
    for scheduler in &SCHEDULERS {
        let variable = scheduler.index;
        let Some(place) = scheduler.place(jobs, &environment).map_err(refused)? else { continue };
        let first = *found.get_or_insert(Job { place, variable });
        if first.place != place {
            return Err(refused(format!(
                "{} says part {}, and {variable} part {place}; give the part's number, such as --partition \
                 {place}/{jobs}",
                first.variable, first.place
            )));
        }
    }
    found.ok_or_else(|| {
        refused(format!(
            "no job array is known here (none of {} names a job of one); run it as one ({}), or give the part's number, \
             such as --partition 0/{jobs}",
            SCHEDULERS.each_ref().map(|scheduler| scheduler.index).join(", "),
            SCHEDULERS[0].request(jobs),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(set: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
    }

    fn refused(jobs: u32, set: &[(&str, &str)]) -> String {
        job(jobs, with(set)).unwrap_err().to_string()
    }

    #[test]
    fn each_scheduler_gives_each_place() {
        for scheduler in &SCHEDULERS {
            for place in 0..8 {
                let number = (place + scheduler.first).to_string();
                // An array that is submitted again for one of its jobs has another largest number.
                for largest in [number.clone(), (7 + scheduler.first).to_string(), String::new()] {
                    let set = [(scheduler.index, number.as_str()), (scheduler.largest.unwrap_or("x"), &largest)];
                    let found = job(8, with(&set)).unwrap();
                    assert_eq!(found, Job { place, variable: scheduler.index });
                }
            }
            let beyond = (8 + scheduler.first).to_string();
            let message = refused(8, &[(scheduler.index, &beyond)]);
            assert!(message.contains(scheduler.index) && message.contains(&scheduler.request(8)), "{message}");
            let Some(largest) = scheduler.largest else { continue };
            let first = scheduler.first.to_string();
            for wrong in [beyond.as_str(), "4294967296"] {
                let message = refused(8, &[(scheduler.index, &first), (largest, wrong)]);
                assert!(message.contains(largest) && message.contains(&scheduler.request(8)), "{message}");
            }
            assert!(refused(8, &[(largest, &first)]).contains("no job array"), "the largest number alone is none");
        }
    }

    #[test]
    fn jobs_outside_arrays_are_none() {
        for outside in [("LSB_JOBINDEX", "0"), ("SGE_TASK_ID", "undefined")] {
            let message = refused(8, &[outside]);
            assert!(message.contains("--partition 0/8") && message.contains("--array=0-7"), "{message}");
            let slurm = [outside, ("SLURM_ARRAY_TASK_ID", "3")];
            assert_eq!(job(8, with(&slurm)).unwrap(), Job { place: 3, variable: "SLURM_ARRAY_TASK_ID" });
        }
        for wrong in ["", "x", "-1", "1.5"] {
            assert!(refused(8, &[("PBS_ARRAY_INDEX", wrong)]).contains("PBS_ARRAY_INDEX is"), "{wrong:?}");
        }
    }

    #[test]
    fn two_schedulers_must_agree() {
        let agree = [("PBS_ARRAY_INDEX", "3"), ("LSB_JOBINDEX", "4")];
        assert_eq!(job(8, with(&agree)).unwrap(), Job { place: 3, variable: "PBS_ARRAY_INDEX" });
        let message = refused(8, &[("PBS_ARRAY_INDEX", "3"), ("LSB_JOBINDEX", "3")]);
        assert!(message.contains("PBS_ARRAY_INDEX says part 3, and LSB_JOBINDEX part 2"), "{message}");
    }
}
