"""What a run looks at along the way: the flow loss is flat after the first thousand steps, these are not."""
