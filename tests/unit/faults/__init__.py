"""Crashes at every step: a daemon is killed right before each state-changing system call of an operation, its own and
those of its helpers, and started again; afterwards the operation has to have happened or not, and nothing between.

``tracer`` stops the processes at their steps, ``syscalls`` says what a step is, ``scenarios`` has the operations, and
``harness`` puts them through it.  No code of the product takes part: it is traced from outside (ptrace(2)).
"""
