# Reads problems (problem, label, a, b), prints their statistics by pROC and base R: problem,name,value.
suppressPackageStartupMessages(library(pROC))
show <- function(problem, name, value) cat(sprintf("%d,%s,%.17g\n", problem, name, value))
rows <- read.csv(commandArgs(trailingOnly = TRUE)[1])
for (problem in unique(rows$problem)) {
  one <- rows[rows$problem == problem, ]
  curve <- function(score) roc(one$label, score, levels = c(0, 1), direction = "<", quiet = TRUE)
  a <- curve(one$a)
  b <- curve(one$b)
  show(problem, "auc", as.numeric(auc(a)))
  show(problem, "standard error", sqrt(var(a, method = "delong")))
  paired <- roc.test(a, b, method = "delong", paired = TRUE)
  show(problem, "difference", as.numeric(auc(a) - auc(b)))
  show(problem, "error of the difference", diff(paired$conf.int) / (2 * qnorm(0.975)))
  show(problem, "p of the difference", paired$p.value)
  show(problem, "low end of the difference", paired$conf.int[1])
  show(problem, "high end of the difference", paired$conf.int[2])
  called <- data.frame(a = one$a >= 0.5, b = one$b >= 0.5)
  right <- called == (one$label == 1)
  split <- c(sum(right[, 1] & !right[, 2]), sum(right[, 2] & !right[, 1]))
  show(problem, "p of McNemar's exact test", if (sum(split)) binom.test(split[1], sum(split))$p.value else 1)
  at_half <- coords(a, x = 0.5, input = "threshold", ret = c("sensitivity", "specificity", "accuracy"))
  for (name in names(at_half)) show(problem, name, at_half[[name]])
  show(problem, "brier", mean((one$a - one$label)^2))
  exact <- binom.test(sum(one$label), nrow(one))$conf.int
  show(problem, "low end of a share", exact[1])
  show(problem, "high end of a share", exact[2])
}
family <- rows$a[rows$problem == rows$problem[1]]
for (value in p.adjust(family, "holm")) show(0, "holm", value)
