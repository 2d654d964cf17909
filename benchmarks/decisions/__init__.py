"""How often decisions are wrong: false alarms of quiet model-days and power, through the pipeline's own code, beside other tools."""
