//! Help in Chinese, for whoever's locale says so. English stands in the commands themselves; this is the one table of the other language.
//!
//! Owns the choice by locale and the texts. Only help is translated: what commands print is read by scripts, too.

use clap::{Arg, Command};

/// The commands by their path, and what they do.
const COMMANDS: &[(&str, &str)] = &[
    ("", "kctl 用于管理 Kubernetes 集群"),
    ("annotate", "更新资源的注解"),
    ("api-resources", "列出服务器支持的 API 资源"),
    ("api-versions", "以 \"组/版本\" 的形式列出服务器支持的 API 版本"),
    ("apply", "按文件或标准输入的内容应用配置"),
    ("attach", "连接到正在运行的容器"),
    ("auth", "查看授权"),
    ("autoscale", "为 Deployment、ReplicaSet、StatefulSet 设置自动扩缩容"),
    ("certificate", "批准或拒绝证书请求"),
    ("cluster-info", "显示集群信息"),
    ("completion", "输出 shell 补全脚本（bash、zsh、fish、powershell）"),
    ("config", "修改 kubeconfig 文件"),
    ("cordon", "将节点标记为不可调度"),
    ("cp", "在本机与容器之间复制文件和目录"),
    ("create", "从文件、标准输入或参数创建资源"),
    ("create clusterrole", "创建 ClusterRole"),
    ("create clusterrolebinding", "为某个 ClusterRole 创建 ClusterRoleBinding"),
    ("create configmap", "从文件、目录或字面值创建 ConfigMap"),
    ("create cronjob", "用给定的名称和计划创建 CronJob"),
    ("create deployment", "用给定的名称和镜像创建 Deployment"),
    ("create ingress", "用给定的名称和规则创建 Ingress"),
    ("create job", "用给定的名称创建 Job"),
    ("create namespace", "用给定的名称创建命名空间"),
    ("create poddisruptionbudget", "用给定的名称创建 PodDisruptionBudget"),
    ("create priorityclass", "用给定的名称创建 PriorityClass"),
    ("create quota", "用给定的名称创建资源配额"),
    ("create role", "用一条规则创建 Role"),
    ("create rolebinding", "为某个 Role 或 ClusterRole 创建 RoleBinding"),
    ("create secret", "创建 Secret"),
    ("create secret docker-registry", "创建访问镜像仓库用的 Secret"),
    ("create secret generic", "从文件、目录或字面值创建 Secret"),
    ("create secret tls", "从公钥/私钥对创建 TLS Secret"),
    ("create service", "用给定的类型创建 Service"),
    ("create serviceaccount", "用给定的名称创建 ServiceAccount"),
    ("create token", "为 ServiceAccount 申请令牌"),
    ("ctx", "列出或切换上下文；\"-\" 表示上一个（kctl 独有）"),
    ("debug", "创建用于排查工作负载和节点问题的调试会话"),
    ("delete", "按文件、标准输入、资源名称或标签选择器删除资源"),
    ("describe", "显示一个或一组资源的详情"),
    ("diff", "比较线上版本与将要应用的版本"),
    ("drain", "腾空节点以便维护"),
    ("edit", "编辑服务器上的资源"),
    ("events", "列出事件"),
    ("exec", "在容器中执行命令"),
    ("explain", "显示资源的文档"),
    ("expose", "把工作负载或 Service 作为新的 Service 暴露出来"),
    ("get", "显示一个或多个资源"),
    ("kuberc", "管理用户偏好文件（kuberc）"),
    ("kustomize", "构建目录中的 kustomization"),
    ("label", "更新资源的标签"),
    ("logs", "打印 Pod 中容器的日志"),
    ("ns", "列出命名空间，或设置当前上下文的命名空间（kctl 独有）"),
    ("options", "列出所有命令通用的选项"),
    ("patch", "更新资源的字段"),
    ("plugin", "与插件相关的工具"),
    ("port-forward", "将本机端口转发到 Pod"),
    ("proxy", "运行到 Kubernetes API 服务器的代理"),
    ("replace", "用文件或标准输入的内容替换资源"),
    ("rollout", "管理资源的上线过程"),
    ("rollout history", "查看上线历史"),
    ("rollout pause", "暂停资源的上线"),
    ("rollout restart", "重启资源"),
    ("rollout resume", "恢复暂停的资源"),
    ("rollout status", "显示上线的状态"),
    ("rollout undo", "撤销上一次上线"),
    ("run", "在集群上运行指定的镜像"),
    ("scale", "设置 Deployment、ReplicaSet 等的副本数"),
    ("set", "设置对象的某些特性"),
    ("set env", "更新 Pod 模板的环境变量"),
    ("set image", "更新 Pod 模板的镜像"),
    ("set resources", "更新 Pod 模板的资源请求和限制"),
    ("set selector", "设置资源的选择器"),
    ("set serviceaccount", "更新资源的 ServiceAccount"),
    ("set subject", "更新绑定中的用户、组或 ServiceAccount"),
    ("taint", "更新一个或多个节点的污点"),
    ("top", "显示资源（CPU/内存）用量"),
    ("tree", "以树的形式显示对象及其所属的一切（kctl 独有）"),
    ("uncordon", "将节点标记为可调度"),
    ("version", "打印客户端和服务器的版本"),
    ("wait", "等待资源达到某个条件"),
    ("why", "说明对象为何没有处于应有的状态（kctl 独有）"),
    ("help", "打印帮助"),
];

/// Flags by their long name, or by `command --name` where one command means something else by it; positional arguments by `command NAME`.
const FLAGS: &[(&str, &str)] = &[
    ("--all", "选择命名空间中该类型的所有资源"),
    ("--all-namespaces", "列出所有命名空间中的对象"),
    ("--allow-missing-template-keys", "模板中缺少字段或键时不报错"),
    ("--append-hash", "在名称后附加内容的哈希"),
    ("--as", "以该用户的身份执行操作"),
    ("--as-group", "以该组的身份执行操作，可重复"),
    ("--as-uid", "以该 UID 的身份执行操作"),
    ("--as-user-extra", "以这些附加信息的身份执行操作，可重复"),
    ("--cache-dir", "缓存目录"),
    ("--cert", "PEM 编码的公钥证书文件"),
    ("--certificate-authority", "证书颁发机构的证书文件"),
    ("--chunk-size", "分块返回大列表；0 表示一次全部返回"),
    ("--client-certificate", "TLS 客户端证书文件"),
    ("--client-key", "TLS 客户端私钥文件"),
    ("--cluster", "使用 kubeconfig 中的该集群"),
    ("--containers", "要修改的容器名称，可使用通配符"),
    ("--context", "使用 kubeconfig 中的该上下文"),
    ("--current-replicas", "前提：当前副本数必须等于该值"),
    ("--decode", "解码后打印 Secret 的值（kctl 独有）"),
    ("--docker-email", "镜像仓库的邮箱"),
    ("--docker-password", "镜像仓库的密码"),
    ("--docker-server", "镜像仓库的地址"),
    ("--docker-username", "镜像仓库的用户名"),
    ("--dry-run", "\"none\"、\"server\" 或 \"client\"：只检查，不保存"),
    ("--edit", "创建之前先编辑资源"),
    ("--env", "要设置的环境变量"),
    ("--field-manager", "字段归属的管理者名称"),
    ("--field-selector", "按字段筛选，支持 '='、'==' 和 '!='"),
    ("--filename", "描述资源的文件、目录或 URL"),
    ("--from", "从该资源（configmap/名称 或 secret/名称）注入环境变量"),
    ("--from-env-file", "每行一个 键=值 的文件"),
    ("--from-file", "文件或目录；可写作 键=文件 来指定键"),
    ("--from-literal", "字面值：键=值"),
    ("--help", "打印帮助"),
    ("--ignore-not-found", "指定的对象不存在时不报错"),
    ("--image", "要运行的镜像"),
    ("--insecure-skip-tls-verify", "不验证服务器的证书"),
    ("--key", "与证书对应的私钥文件"),
    ("--keys", "只从资源中导入这些键，以逗号分隔"),
    ("--kubeconfig", "使用该 kubeconfig 文件"),
    ("--kuberc", "使用该 kuberc 文件；KUBERC=off 表示不用"),
    ("--kustomize", "处理 kustomization 目录，不能与 -f 或 -R 同用"),
    ("--label-columns", "把这些标签显示为列，以逗号分隔"),
    ("--list", "列出现有的值"),
    ("--local", "在本地执行，不联系服务器"),
    ("--namespace", "本次请求的命名空间"),
    ("--no-headers", "不打印表头"),
    ("--output", "输出格式"),
    ("--output-watch-events", "与 --watch 同用时输出监视事件"),
    ("--overwrite", "允许覆盖已有的值"),
    ("--password", "基本认证的密码"),
    ("--port", "容器暴露的端口"),
    ("--prefix", "加在变量名前的前缀"),
    ("--raw", "直接请求服务器的 URI"),
    ("--recursive", "递归处理 -f 指定的目录"),
    ("--replicas", "期望的副本数"),
    ("--request-timeout", "单个请求的最长等待时间"),
    ("--resolve", "列出变量时显示引用的 Secret 或 ConfigMap 的值"),
    ("--resource-version", "前提：资源版本必须等于该值"),
    ("--save-config", "把配置保存在对象的注解中"),
    ("--selector", "标签选择器，支持 '='、'=='、'!='、'in'、'notin'"),
    ("--server", "API 服务器的地址和端口"),
    ("--server-print", "由服务器返回表格"),
    ("--show-kind", "显示对象的资源类型"),
    ("--show-labels", "把所有标签显示在最后一列"),
    ("--show-managed-fields", "以 JSON 或 YAML 打印时保留 managedFields"),
    ("--sort-by", "按该 JSONPath 字段排序"),
    ("--subresource", "操作该子资源"),
    ("--template", "-o=go-template 等使用的模板或模板文件"),
    ("--timeout", "放弃之前的最长等待时间，0 表示不等待"),
    ("--tls-server-name", "验证服务器证书时使用的名称"),
    ("--token", "访问 API 服务器的令牌"),
    ("--type", "Secret 的类型"),
    ("--user", "使用 kubeconfig 中的该用户"),
    ("--username", "基本认证的用户名"),
    ("--v", "日志的详细程度"),
    ("--validate", "strict（或 true）、warn、ignore（或 false）"),
    ("--warnings-as-errors", "把服务器的警告当作错误"),
    ("--watch", "列出之后继续监视变化"),
    ("--watch-only", "只监视变化，不先列出"),
    ("TYPE NAME", "资源"),
    ("TYPE [NAME]", "类型和名称：pods、pod x y、pod/x svc/y、pods,svc、all"),
    ("NAME", "名称"),
    ("label TYPE NAME KEY=VALUE", "资源，然后是 键=值；\"键-\" 表示删除"),
    ("annotate TYPE NAME KEY=VALUE", "资源，然后是 键=值；\"键-\" 表示删除"),
    ("set image TYPE NAME CONTAINER=IMAGE", "资源，然后是 容器=镜像；\"*\" 表示所有容器"),
    ("set env RESOURCE/NAME KEY=VALUE", "资源，然后是 变量=值；\"变量-\" 表示删除，\"-\" 表示从标准输入读取"),
    ("run --env", "在容器中设置的环境变量"),
    ("scale --replicas", "新的期望副本数，必填"),
];

const TEMPLATE: &str = "{before-help}{about-with-newline}\n用法：{usage}\n\n{all-args}{after-help}";
const AFTER: &str = "用 \"kctl <命令> --help\" 查看某个命令的详细说明。\n用 \"kctl options\" 查看所有命令通用的选项。";

/// The command tree in the language of the environment.
pub fn localized(command: Command) -> Command {
    // The first of these that is set decides, as POSIX has it.
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"].iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
    if locale.is_some_and(|l| l.starts_with("zh")) { in_chinese(command, "").after_help(AFTER) } else { command }
}

fn in_chinese(command: Command, path: &str) -> Command {
    let about = COMMANDS.iter().find(|(name, _)| *name == path).map(|(_, text)| *text);
    let command = match about {
        Some(text) => command.about(text).long_about(text),
        None => command,
    };
    command
        .help_template(TEMPLATE)
        .subcommand_help_heading("命令")
        .disable_help_flag(true)
        .arg(Arg::new("help").short('h').long("help").action(clap::ArgAction::Help))
        .mut_args(|arg| argument(arg, path))
        .mut_subcommands(|sub| {
            let path = if path.is_empty() { sub.get_name().to_owned() } else { format!("{path} {}", sub.get_name()) };
            in_chinese(sub, &path)
        })
}

fn argument(arg: Arg, path: &str) -> Arg {
    let name = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default(),
    };
    let own = format!("{path} {name}");
    let find = |wanted: &str| FLAGS.iter().find(|(flag, _)| *flag == wanted).map(|(_, text)| *text);
    let heading = match arg.get_help_heading() {
        Some(_) => "通用选项",
        None if arg.get_long().is_some() => "选项",
        None => "参数",
    };
    let arg = arg.help_heading(heading);
    match find(&own).or_else(|| find(&name)) {
        Some(text) => arg.help(text).long_help(text),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command_at<'a>(root: &'a Command, path: &str) -> Option<&'a Command> {
        path.split(' ').filter(|p| !p.is_empty()).try_fold(root, |command, name| command.find_subcommand(name))
    }

    #[test]
    fn every_entry_names_something_that_is_there() {
        let root = crate::app::command();
        for (path, _) in COMMANDS.iter().filter(|(path, _)| *path != "help") {
            assert!(command_at(&root, path).is_some(), "no command {path:?}");
        }
        for (flag, _) in FLAGS.iter().filter(|(flag, _)| flag.contains(" --")) {
            let (path, long) = flag.split_once(" --").unwrap();
            let command = command_at(&root, path).unwrap_or_else(|| panic!("no command {path:?}"));
            assert!(command.get_arguments().any(|a| a.get_long() == Some(long)), "no flag {flag:?}");
        }
    }

    #[test]
    fn the_commands_of_daily_work_are_chinese_throughout() {
        let root = in_chinese(crate::app::command(), "");
        let chinese = |text: String| text.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c));
        for path in [
            "create",
            "create secret generic",
            "create secret docker-registry",
            "create secret tls",
            "create configmap",
            "get",
            "label",
            "annotate",
            "scale",
            "set image",
            "set env",
        ] {
            let command = command_at(&root, path).unwrap();
            assert!(chinese(command.get_about().unwrap().to_string()), "{path}");
            for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
                let text = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(chinese(text.clone()), "{path}: {:?} {:?} says {text:?}", arg.get_long(), arg.get_value_names());
            }
        }
    }
}
