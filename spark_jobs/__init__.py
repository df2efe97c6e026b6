"""The Spark jobs: bronze to silver, silver to gold."""
