"""Doing things at the same time: learning beside acting, many seeds in processes or in one
program."""
