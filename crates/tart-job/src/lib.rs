//! What a job means, without doing it: variables, expansion, masking, stage scripts.
